"""Memory in huge pages, where the system gives them to who asks.

A step on a CPU takes its temporaries from the C library and gives them back. On pages of 4 KiB the
kernel spends a fifth of the step on making them anew; on pages of 2 MiB next to nothing. glibc asks
for these where its tunable says so, which it reads when a process starts.
"""

import os
import platform
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb"
_OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this command again, in its place, with the tunable set; for commands alone.

    Does nothing where the tunable is set already, to whatever value, or the C library is no glibc,
    or the system gives huge pages to all or to none.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    try:
        is_offered = "[madvise]" in _OFFERED.read_text(encoding="ascii")
    except OSError:
        return
    if TUNABLE in tunables or not is_offered or platform.libc_ver()[0] != "glibc":
        return
    setting = f"{TUNABLE}=1"
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{setting}" if tunables else setting
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
