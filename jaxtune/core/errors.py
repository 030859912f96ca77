"""The one exception that a person's mistake raises, and the nearest-name hint it carries."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message names where, what was found, what was expected, and the remedy.

    The command line prints the message alone and exits with status 2; a library user gets an
    ordinary exception.
    """


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Returns ` Nearest: a, b.` for the known names most like `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
    return f" Nearest: {', '.join(matches)}." if matches else ""
