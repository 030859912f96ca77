"""What a person sees on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from jaxtune.core.units import human_bytes, human_flops, human_seconds
from jaxtune.run.columns import break_words
from jaxtune.run.console import Report


def report(terminal, width=100):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, highlight=False)
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


def test_a_bar_shows_what_it_is_told_of_the_time_left():
    shown, stream = report(terminal=True)
    with shown.bar("training", 100) as update:
        update(1, left=3725.4)
    assert "1:02:05" in stream.getvalue()
    shown.progress("step 1/100")  # which the bar shows
    assert "step 1/100" not in stream.getvalue()


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


LONG = "/a/path/that/is/longer/than/what/a/narrow/terminal/has/room/for/model.safetensors"


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_narrow_table_breaks_between_words_and_cuts_none(width):
    shown, stream = report(terminal=False, width=width)
    words = "train: 204 of 259 texts are longer than max_length 32 and were cut, 語" * 2
    shown.table("title", [("name", words), ("", LONG), ("third", "")])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "title"
    assert all(line.startswith(("  name   ", "  third", "         ")) for line in lines[1:])
    assert " ".join(stream.getvalue().split()) == f"title name {words} {LONG} third"
    for line in lines:
        assert len(line) <= width or LONG in line
        assert line == line.rstrip()


def test_a_narrow_grid_keeps_its_numbers():
    shown, stream = report(terminal=False, width=60)
    rows = [
        ("trainable bert/encoder/layer/0, not decayed", "7,087,872", "1.06e-05"),
        ("b", "4", "-"),
    ]
    shown.grid("title", ("group", "count", "rate"), rows)
    assert stream.getvalue().splitlines() == [
        "title",
        "  group                                      count      rate",
        "  trainable bert/encoder/layer/0, not    7,087,872  1.06e-05",
        "  decayed",
        "  b                                              4         -",
    ]


def test_wide_letters_count_twice():
    assert break_words("語語 語語 ab", 9) == ["語語 語語", "ab"]
    assert break_words("語語 語語 ab", 8) == ["語語", "語語 ab"]
    assert break_words("", 8) == [""]


def test_a_terminal_breaks_lines_between_words():
    shown, stream = report(terminal=True, width=20)
    shown.line("one step costs 60% of a full one")
    assert stream.getvalue() == "one step costs 60%\nof a full one\n"


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
