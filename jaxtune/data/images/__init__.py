"""From rows of images to pixels."""
