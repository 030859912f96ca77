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


GUIDE = README.parent / "jaxtune" / "models" / "README.md"


def test_the_guide_to_adding_a_family_is_short():
    """Its code is run by tests/models/test_families.py."""
    assert len(GUIDE.read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("file", [README, GUIDE])
def test_files_and_commands_that_it_names_exist(file):
    text = file.read_text(encoding="utf-8")
    root = file.parent
    for name in re.findall(r"\]\(([\w/.]+)\)", text) + re.findall(
        r"--config=(configs/\w+\.py)", text
    ):
        assert (root / name).exists(), name
