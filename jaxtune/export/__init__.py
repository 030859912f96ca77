"""Files for others: transformers, peft, and folders of what was trained."""
