"""The README's Python runs as it stands, on the quickstart's base model."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs_and_learns(minilm, capsys):
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert '"runs/quickstart/model"' in code
    code = code.replace('"runs/quickstart/model"', repr(str(minilm)))
    exec(code, {})
    loss = float(re.search(r"loss ([\d.]+), gradient norm", capsys.readouterr().out)[1])
    assert loss < 0.1  # ln 2 = 0.69 is what knowing nothing gives


GUIDE = README.parent / "docs" / "extending" / "family.md"


def test_the_guide_to_adding_a_family_is_short():
    """Its code is run by tests/models/test_families.py."""
    assert len(GUIDE.read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("file", [README, README.parent / "CONTRIBUTING.md"])
def test_files_and_commands_that_it_names_exist(file):
    """mkdocs holds the links of the pages under docs/."""
    text = file.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    for name in [link for link in links if not link.startswith("http")]:
        assert (file.parent / name).exists(), name
    for name in re.findall(r"--config=(configs/\w+\.py)", text):
        assert (README.parent / name).exists(), name


def test_the_map_has_every_room_and_the_files_that_it_names():
    package = README.parent / "jaxtune"
    rows = re.findall(r"^\| `(\w+)/` \| (.*) \|$", README.read_text(encoding="utf-8"), re.M)
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert {room for room, _ in rows} == rooms
    for room, holds in rows:
        for name in re.findall(r"`(\w+)`", holds):
            files = [*(package / room).rglob(f"{name}.py")]
            assert files or name in ("scores", "higher_is_better"), f"{room}/: {name}"
        for folder in re.findall(r"`(\w+)/`", holds):
            assert (package / room / folder).is_dir(), f"{room}/{folder}/"
