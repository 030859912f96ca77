"""Files written whole or not at all, JSON and digests, folders kept from run to run."""
