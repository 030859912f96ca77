"""What a log and a notebook get: plain lines on standard output, and no bar."""

import pytest
import rich.console

from jaxtune.run.console import Report


@pytest.mark.parametrize("jupyter", [False, True])
def test_what_is_no_terminal_gets_plain_lines(jupyter, monkeypatch, capsys):
    """Jupyter sets FORCE_COLOR for what it starts, and so does CI."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: jupyter)
    report = Report()
    report.table("title", [("name", "value")])
    with report.bar("texts", 2) as update:
        report.progress("step 1")
        update()
    assert capsys.readouterr().out == "title\n  name    value\nstep 1\n"
