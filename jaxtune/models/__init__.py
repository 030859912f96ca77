"""Models in Flax Linen, their weight files, and the conversion between the two."""
