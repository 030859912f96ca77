"""Texts without the paths of the machine on which a run was: only the names of files are left."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtune.reporting.facts import Facts

_ABSOLUTE = re.compile(
    r"(?<![\w./:~-])(?:/|~/|[A-Za-z]:[\\/])[^\s'\"`,;()]*[\\/]([^\s'\"`,;()\\/]+)[\\/]?"
)


def name_of(path: str) -> str:
    """What a path is called where it is shown: as it is if relative, else its last part."""
    if not path or not _is_absolute(path):
        return path
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


def without_paths(text: str, facts: Facts) -> str:
    """The text with the names of files and folders in the place of absolute paths."""
    for path in sorted(_known(facts), key=len, reverse=True):
        text = text.replace(path, name_of(path))
    return _ABSOLUTE.sub(r"\1", text)


def _known(facts: Facts) -> set[str]:
    """The absolute paths that a run knows, which may have spaces in them."""
    typed = [str(facts.workdir), *_paths(facts.config, "model"), *_paths(facts.config, "data")]
    found = {path for path in typed if _is_absolute(path)}
    found |= {os.path.abspath(os.path.expanduser(path)) for path in typed}
    return {path for path in found if len(Path(path).parts) > 1}


def _paths(config: Mapping[str, Any], section: str) -> list[str]:
    path = config.get(section, {}).get("path")
    return [path] if isinstance(path, str) and path else []


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", path) is not None
