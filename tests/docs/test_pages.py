"""The Python of the documentation runs as it stands, page by page, on a tiny model."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT / "docs")): re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for text in [page.read_text(encoding="utf-8")]
    if "\n```python\n" in text and page.name != "family.md"  # tests/models/test_families.py has it
}


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_their_order(page, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("google-bert").mkdir()
    Path("google-bert/bert-base-uncased").symlink_to(golden / "odd")  # a folder beats the hub
    names = {"__name__": "page"}
    for number, code in enumerate(PAGES[page], 1):
        exec(compile(code, f"{page}, block {number}", "exec"), names)
