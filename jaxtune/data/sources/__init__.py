"""From a path or a hub name to checked rows by split."""
