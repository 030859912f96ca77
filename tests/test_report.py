"""What a person sees on a terminal and in a file."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console

from jaxtune.core.units import human_bytes, human_flops, human_seconds
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook
from jaxtune.run.tally import Tally, seconds_left
from jaxtune.run.train import train


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


def test_a_bar_shows_what_it_is_told_of_the_time_left():
    shown, stream = report(terminal=True)
    with shown.bar("training", 100) as update:
        update(1, left=3725.4)
    assert "1:02:05" in stream.getvalue()
    shown.progress("step 1/100")  # which the bar shows
    assert "step 1/100" not in stream.getvalue()


class _Examples(NamedTuple):
    lengths: np.ndarray


def run_of(steps, every, batch_size, held_out):
    """Of a run, what the time left depends on."""
    return SimpleNamespace(
        goal=SimpleNamespace(num_steps=steps, steps_per_epoch=50),
        settings=SimpleNamespace(
            train=SimpleNamespace(batch_size=batch_size, eval_every_steps=every)
        ),
        data=SimpleNamespace(examples={"validation": _Examples(np.ones(held_out))}),
    )


def test_the_time_left_counts_steps_and_evaluations():
    run: Any = run_of(steps=100, every=30, batch_size=8, held_out=60)
    assert seconds_left(run, 0, Tally()) is None
    begun = Tally(seconds=20.0, examples=80)  # 10 steps of 2 s
    # 90 steps, and 4 evaluations (30, 60, 90 and the last) of 60 examples at a third of 0.25 s each
    assert seconds_left(run, 10, begun) == pytest.approx(90 * 2 + 4 * 60 * 0.25 / 3)
    timed = Tally(seconds=120.0, examples=480, evaluating=7.0)
    assert seconds_left(run, 60, timed) == pytest.approx(40 * 2 + 2 * 7)
    assert seconds_left(run, 100, timed) == 0
    by_epoch: Any = run_of(steps=100, every=None, batch_size=8, held_out=60)
    assert seconds_left(by_epoch, 60, timed) == pytest.approx(40 * 2 + 7)


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


class Watched(Report):
    """Notes what the bar of training is told of the time left."""

    def __init__(self):
        super().__init__(quiet=True)
        self.left = []

    @contextlib.contextmanager
    def bar(self, name, total, done=0):
        del total, done

        def update(advance=1, note=None, left=None):
            if name == "training" and advance:
                self.left.append(left)

        yield update


def test_a_run_tells_the_time_left_and_times_its_evaluations(tiny_settings, tiny_weights, tmp_path):
    model = tiny_weights("classification", "bert", 1)
    steps = {"train.num_steps": 4, "train.eval_every_steps": 2}
    settings = tiny_settings("classification", "head", model, **steps)
    shown, timed = Watched(), []
    hook = Hook(lambda moment: timed.append(moment.tally.evaluating), lambda moment: True)
    train(settings, tmp_path / "run", shown, hooks=[hook])
    assert [seconds > 0 for seconds in timed] == [False, True, True, True]
    assert len(shown.left) == 4
    assert all(seconds > 0 for seconds in shown.left[:3])
    assert shown.left[3] == 0
