"""The documentation says what is so: its Python runs, and the names that it names are there."""

import re
from pathlib import Path

import pytest

from jaxtune.run.config import SHORT
from jaxtune.run.config_reference import describe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TEXTS = {
    str(page.relative_to(DOCS)): page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")
}
BLOCKS = {
    page: re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for page, text in sorted(TEXTS.items())
    if "\n```python\n" in text and page != "extending/family.md"  # models/test_families.py has it
}
SECTIONS = {row.name.split(".")[0] for row in describe() if "." in row.name}


@pytest.mark.parametrize("page", BLOCKS)
@pytest.mark.usefixtures("counted_operations")
def test_the_blocks_of_a_page_run_in_their_order(page, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("google-bert").mkdir()
    Path("google-bert/bert-base-uncased").symlink_to(golden / "one_type")  # a folder beats the hub
    names = {"__name__": "page"}
    for number, code in enumerate(BLOCKS[page], 1):
        exec(compile(code, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", [*TEXTS, "../README.md"])
def test_settings_that_it_names_are_there(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    known = {row.name for row in describe()} | SHORT.keys()
    typed = re.findall(r"--config\.([\w.]+)[= ]", text)
    table = re.findall(r"`(\w+\.\w+)(?:=[^`]*)?`", text) if page.startswith("from_") else []
    named = {name for name in [*typed, *table] if name.split(".")[0] in SECTIONS}
    assert named | {name for name in typed if "." not in name} <= known


def test_every_public_name_has_its_entry_in_the_reference():
    pages = "\n".join(text for page, text in TEXTS.items() if page.startswith("api/"))
    entries = set(re.findall(r"^::: jaxtune\.([\w.]+)$", pages, re.M))
    spaces = {"data", "parallel", "tasks", "tuning"}
    public = set()
    for folder in ("", *spaces):
        stub = (ROOT / "jaxtune" / folder / "__init__.pyi").read_text(encoding="utf-8")
        names = re.findall(r"^from \.\S* import \w+ as (\w+)$", stub, re.M)
        public |= {f"{folder}.{name}".strip(".") for name in names}
    public -= {*spaces, "losses", "tuning.label"}  # pages of their own; and jt.label
    assert public <= entries
    assert "training.losses" in entries


def test_what_the_map_says_is_in_a_file_is_there():
    for page in ("architecture.md", "extending/index.md"):
        for name, file in re.findall(r"`(\w+)` in \[[\w.]+\]\(([^)]+)\)", TEXTS[page]):
            code = (DOCS / page).parent.joinpath(file).read_text(encoding="utf-8")
            assert re.search(rf"^\s*(?:def|class) {name}\b", code, re.M), f"{name} in {file}"
