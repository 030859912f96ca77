"""Clocks, files and people: everything around the pure step."""
