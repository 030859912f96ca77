"""What is kept of a task's outputs for a report: a few numbers a row, one file a kind of output."""
