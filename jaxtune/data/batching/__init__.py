"""From examples of any length to batches of a few shapes."""
