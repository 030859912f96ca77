"""The commands beside training and prediction, one file each."""
