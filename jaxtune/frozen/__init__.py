"""What frozen layers give is computed once: the plan, the store, the loader."""
