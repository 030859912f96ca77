"""What mkdocs adds to the pages: the table of all settings, and links to files of the repository.

Needs neither JAX nor any other of jaxtune's heavy dependencies.
"""

import posixpath
import re
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTINGS = "<!-- all settings -->"
_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page as it is built."""
    if SETTINGS in markdown:
        markdown = markdown.replace(SETTINGS, settings_tables())
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))
    return _LINK.sub(lambda found: _in_repository(found, folder), markdown)


def settings_tables() -> str:
    """A table for each section of the settings."""
    sys.path.insert(0, str(ROOT))
    from jaxtune.run.config_reference import describe

    found = [(name.rpartition(".")[0], row) for row in describe() for name in [row.name]]
    lines = []
    for section, rows in groupby(found, key=lambda pair: pair[0]):
        lines += [f"## `{section}`" if section else "## The run", ""]
        lines += ["| Setting | Admits | Default | Meaning |", "|---|---|---|---|"]
        for _, (name, kind, default, meaning) in rows:
            cells = (f"`{name}`", kind, f"`{default}`" if default else "", meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _in_repository(found: re.Match[str], folder: str) -> str:
    """A link to a file outside of docs/ becomes its name: the site does not hold it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    text, target = found[1], posixpath.normpath(posixpath.join(folder, found[2]))
    if target.startswith("docs/"):
        return found[0]
    if not (ROOT / target).exists():
        raise FileNotFoundError(f"{folder}: {found[0]} links to {target}, which is not there")
    return f"`{target}`" if text.strip("`") in target else f"{text} (`{target}`)"
