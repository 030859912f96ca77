"""What a step costs and what a sweep says: reads, never trains."""
