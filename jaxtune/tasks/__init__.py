"""Tasks: loss, metrics and decoding, one file each."""
