"""What the processor of this machine has, where rounding depends on it."""

from pathlib import Path


def has(flag):
    """Whether an x86 processor has a feature; of others, and where no system tells, True."""
    file = Path("/proc/cpuinfo")
    told = file.read_text() if file.exists() else ""
    return "flags" not in told or flag in told
