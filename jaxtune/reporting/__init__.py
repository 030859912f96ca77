"""A finished run to look at: report.html, its figures, and the card of its model."""
