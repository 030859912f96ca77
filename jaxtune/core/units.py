"""Numbers with units, as a person reads them."""

from collections.abc import Sequence


def human_bytes(count: float) -> str:
    """For example 91.2 MB."""
    return f"{count:.0f} B" if count < 1000 else _prefixed(count, "B", ("", "k", "M", "G", "T"))


def human_flops(count: float) -> str:
    """For example 102.7 GFLOP."""
    return _prefixed(count, "FLOP", ("", "k", "M", "G", "T", "P"))


def _prefixed(count: float, unit: str, prefixes: Sequence[str]) -> str:
    """With the prefix that leaves it below 1,000, or else the last."""
    *steps, last = prefixes
    for prefix in steps:
        if count < 1000:
            return f"{count:.1f} {prefix}{unit}"
        count /= 1000
    return f"{count:.1f} {last}{unit}"


def human_seconds(seconds: float) -> str:
    """For example 2 min 05 s, or 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
