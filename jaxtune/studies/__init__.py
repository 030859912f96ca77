"""Several runs together: compared with each other, or sought the best of."""
