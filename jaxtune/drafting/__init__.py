"""The config that `jaxtune new` writes from a look at data."""
