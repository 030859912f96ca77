"""Data: from files and hub datasets to batches of a few shapes."""
