"""Tuning strategies: what is trained, one file each."""
