"""The notebooks run to their ends, what they assert holds, and they print what stands in them."""

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
BOOKS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.ipynb")}
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")

_MACHINE = r"/(?:home|root|tmp|usr|work|Users)/|site-packages|\x1b"


def cells(name):
    return [cell for cell in BOOKS[name]["cells"] if cell["cell_type"] == "code"]


def run(name):
    """What each cell prints; a process that one has started is ended."""
    names, printed = {"__name__": "__main__"}, []
    try:
        for number, cell in enumerate(cells(name), 1):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), names)
            printed.append(out.getvalue())
    finally:
        for value in names.values():
            if isinstance(value, subprocess.Popen):
                value.kill()
                value.communicate()
    return printed


def committed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"])


def numbers(text):
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("reports", "counted_operations")
@pytest.mark.parametrize("name", sorted(BOOKS))
def test_a_notebook_prints_what_stands_in_it(name, tmp_path, monkeypatch):
    """In the same words; other versions and processors round otherwise, and numbers follow."""
    monkeypatch.chdir(tmp_path)
    for cell, found in zip(cells(name), run(name), strict=True):
        wanted = committed(cell)
        if "varies" in cell["metadata"].get("tags", ()) or found.startswith("skipped: "):
            continue
        assert " ".join(_NUMBER.sub("0", found).split()) == " ".join(
            _NUMBER.sub("0", wanted).split()
        )
        assert numbers(found) == pytest.approx(numbers(wanted), rel=0.1, abs=0.06), found


@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_is_committed_as_it_should_be(name):
    """Executed once, from top to bottom; it prints alone, and nothing that is a machine's."""
    text = json.dumps(BOOKS[name])
    assert len(text) < 60_000
    assert [cell["execution_count"] for cell in cells(name)] == [*range(1, len(cells(name)) + 1)]
    for cell in BOOKS[name]["cells"]:
        assert cell["metadata"].keys() <= {"tags"}
        for output in cell.get("outputs", ()):
            assert (output["output_type"], output["name"]) == ("stream", "stdout")
            assert not re.search(_MACHINE, committed(cell))
