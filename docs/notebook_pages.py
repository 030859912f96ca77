"""What mkdocs makes of the notebooks: a page each, whose links are checked as those of others."""

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FOLDER = "examples"


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Adds a page for each notebook."""
    for path in sorted(Path(config["docs_dir"], FOLDER).glob("*.ipynb")):
        page = as_markdown(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"{FOLDER}/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks become links to their pages."""
    return markdown.replace(".ipynb)", ".md)")


def as_markdown(notebook: dict[str, Any]) -> str:
    """Texts as they are, code and what it printed in fences."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"````python\n{source}\n````")
        printed = "".join("".join(output["text"]) for output in cell["outputs"]).rstrip()
        if printed:
            parts.append(f"````text\n{printed}\n````")
    return "\n\n".join(parts) + "\n"
