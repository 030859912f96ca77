"""What a person sees on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from jaxtune.core.units import human_bytes, human_flops, human_seconds
from jaxtune.run.console import Report


def report(terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, highlight=False)
    return Report(console), stream


def test_a_bar_within_a_bar_shows_count_time_left_and_note():
    shown, stream = report(terminal=True)
    with shown.bar("training", 4) as update:
        update(1, "loss 0.5000")
        with shown.bar("evaluating", 2) as inner:
            inner()
        shown.line("step 1  accuracy 0.5")
        update(3)
    text = stream.getvalue()
    for part in ("training", "4/4", "left", "loss 0.5000", "evaluating", "step 1  accuracy"):
        assert part in text, part


def test_in_a_file_there_are_only_lines():
    shown, stream = report(terminal=False)
    assert list(shown.track("tokenizing")(range(3))) == [0, 1, 2]
    shown.line("[PAD] is no markup " + "x" * 200)
    assert stream.getvalue() == "[PAD] is no markup " + "x" * 200 + "\n"


def test_a_table_keeps_brackets():
    shown, stream = report(terminal=False)
    shown.table("[bold]", [("name", "[red]value[/red]")])
    assert "[red]value[/red]" in stream.getvalue()


def test_a_grid_has_named_columns_with_numbers_to_the_right():
    shown, stream = report(terminal=False)
    shown.grid("title", ("group", "count"), [("[lora]", "73,728"), ("head", "4")])
    title, *lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert title == "title"
    assert [line.split() for line in lines] == [
        ["group", "count"],
        ["[lora]", "73,728"],
        ["head", "4"],
    ]
    assert len({len(line) for line in lines}) == 1  # the last column ends in one place
    assert len({len(line) - len(line.lstrip()) for line in lines}) == 1


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (91e6, "91.0 MB")]
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12.0 FLOP"), (69.1e9, "69.1 GFLOP"), (2.5e13, "25.0 TFLOP"), (4e15, "4.0 PFLOP")],
)
def test_human_flops(count, text):
    assert human_flops(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.04, "2.0 s"), (59.9, "59.9 s"), (125, "2 min 05 s")]
)
def test_human_seconds(seconds, text):
    assert human_seconds(seconds) == text
