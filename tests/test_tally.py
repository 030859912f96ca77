"""The time left, on a clock that only what costs time moves: a device that runs behind the host."""

import contextlib
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxtune.core.types import Mean
from jaxtune.run import loop
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook
from jaxtune.run.loop import Around, fit
from jaxtune.run.prepare import prepare
from jaxtune.run.tally import Pace, Tally, after_hooks, after_step, seconds_left
from jaxtune.run.train import train
from jaxtune.training.compiled import Compiled
from jaxtune.training.step import StepInfo
from jaxtune.tuning.gradual import Gradual


class _Examples(NamedTuple):
    lengths: np.ndarray


def run_of(steps, every, strategy=None, stages=1):
    """Of a run, what the time left depends on."""
    return SimpleNamespace(
        goal=SimpleNamespace(num_steps=steps, steps_per_epoch=50),
        settings=SimpleNamespace(train=SimpleNamespace(batch_size=8, eval_every_steps=every)),
        data=SimpleNamespace(
            examples={"validation": _Examples(np.ones(60))},
            stream=SimpleNamespace(groups=None, examples=_Examples(np.ones(396))),
        ),
        tuning=SimpleNamespace(strategy=strategy, stage_labels=[None] * stages),
    )


def test_the_time_left_counts_steps_and_evaluations():
    run: Any = run_of(steps=100, every=30)  # two epochs of 49 batches of 8 and one of 4
    assert seconds_left(run, 0, Tally()) is None
    begun = Tally(pace=Pace(seconds=20.0, examples=80, compiling=6.0))  # 10 steps of 2 s
    # 712 examples, and 4 evaluations (30, 60, 90 and the last) of 60 examples at a third of 0.25 s
    # each, whose program takes a third as well
    assert seconds_left(run, 10, begun) == pytest.approx(712 / 4 + 4 * 60 * 0.25 / 3 + 6 / 3)
    behind = begun._replace(pace=Pace(seconds=20.0, examples=80, under_way=16))
    assert seconds_left(run, 12, behind) == pytest.approx((696 + 16) / 4 + 4 * 60 * 0.25 / 3)
    timed = Tally(evaluating=7.0, pace=Pace(seconds=120.0, examples=480, compiling=6.0))
    assert seconds_left(run, 60, timed) == pytest.approx(316 / 4 + 3 * 7)
    assert seconds_left(run, 61, timed) == pytest.approx(308 / 4 + 2 * 7)
    assert seconds_left(run, 100, timed) == 7
    by_epoch: Any = run_of(steps=100, every=None)
    assert seconds_left(by_epoch, 60, timed) == pytest.approx(316 / 4 + 7)


def test_stages_to_come_compile_too():
    timed = Tally(evaluating=7.0, pace=Pace(seconds=120.0, examples=480, compiling=6.0))
    strategy = Gradual(stage_by="step", stage_length=20)
    run: Any = run_of(100, 30, strategy, stages=4)  # they begin at 20, 40 and 60
    assert seconds_left(run, 40, timed) == pytest.approx((396 + 76) / 4 + 3 * 7 + 2 * 6)
    assert seconds_left(run, 61, timed) == pytest.approx(308 / 4 + 2 * 7)
    by_score: Any = run_of(100, 30, Gradual(stage_by="plateau"), stages=4)
    assert seconds_left(by_score, 40, timed) == pytest.approx((396 + 76) / 4 + 3 * 7)


def test_the_pace_is_that_of_the_last_steps():
    tally = Tally()
    for own in (1.0,) * 100 + (0.1,) * 60:
        tally = after_step(tally, (4, 40), own, 0, 0.0)
    assert tally.seconds == pytest.approx(106)
    assert (tally.examples, tally.tokens) == (640, 6400)
    assert tally.pace.seconds / tally.pace.examples == pytest.approx(0.1 / 4, rel=0.5)
    told = after_hooks(tally, 3.0, evaluated=False)
    assert told.pace.seconds == tally.pace.seconds + 3
    assert after_hooks(tally, 3.0, evaluated=True) == tally._replace(evaluating=3.0)


class World:
    """A clock, a device that takes up steps one after the other, and what each of its works costs.

    A step takes `STEP` on the device and nearly nothing on the host, an evaluation `EVALUATION`, a
    checkpoint `SAVE`, and compiling for the step of each stage, or for the evaluation, what their
    names say.
    """

    STEP, EVALUATION, SAVE, COMPILING, COMPILING_EVALUATION = 0.1, 0.5, 0.2, 5.0, 3.0

    def __init__(self, grows):
        self.stages, self.grows = (
            0,
            grows,
        )  # the steps of a stage take three times as long as the last ones
        self.now = self.free = 1000.0
        self.done: list[float] = []
        self.step = SimpleNamespace(waited=0.0)  # of the scorer
        self.unreadable, self.latest_step = (), None  # of the checkpoints

    def patch(self, monkeypatch):
        add, world = loop.add_losses, self
        monkeypatch.setattr(loop.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(Compiled, "ahead", lambda *args, **options: None)

        def compile_step(compiled, *args):
            found: Future = Future()
            found.set_result(world.take)
            if compiled._programs.setdefault("one", found) is found:
                world.now += world.COMPILING
                world.stages += 1
            return compiled._programs["one"]

        def wait(taken):
            self.now = max([self.now, *(self.done[step.number - 1] for step in taken)])

        def add_losses(run, progress, taken, params, say):
            wait(taken)
            return add(run, progress, taken, params, say)

        monkeypatch.setattr(Compiled, "_compile", compile_step)
        monkeypatch.setattr(Compiled, "knows", lambda compiled, batch: bool(compiled._programs))
        monkeypatch.setattr(loop.jax, "block_until_ready", wait)
        monkeypatch.setattr(loop, "add_losses", add_losses)
        monkeypatch.setattr(loop, "_is_done", lambda step: self.done[step.number - 1] <= self.now)

    def take(self, state, frozen, batch):
        self.now += 0.001
        slower = 3 ** (self.stages - 1) if self.grows else 1
        self.free = max(self.now, self.free) + self.STEP * slower
        self.done.append(self.free)
        return state, StepInfo(Mean(np.float32(1), np.float32(1)), np.float32(1))

    def __call__(self, params, split):
        if not self.step.waited:
            self.step.waited = self.COMPILING_EVALUATION
            self.now += self.COMPILING_EVALUATION
        self.now += self.EVALUATION
        return {"loss": 1.0, "accuracy": 0.5}

    def save(self, *args):
        self.now += self.SAVE


class Watched(Report):
    """Notes what the bar of training is told of the time left, and when."""

    def __init__(self, clock=lambda: 0.0):
        super().__init__(quiet=True)
        self.left, self.clock = [], clock

    @contextlib.contextmanager
    def bar(self, name, total, done=0):
        del total, done

        def update(advance=1, note=None, left=None):
            if name == "training" and advance:
                self.left.append((self.clock(), left))

        yield update


STEADY = {"train.num_steps": 150, "train.eval_every_steps": 30, "train.log_every_steps": 10}
CASES = {
    "steady": ("full", STEADY),
    "rarely-waited-for": ("full", STEADY | {"train.log_every_steps": 150}),
    "one-evaluation": ("full", STEADY | {"train.eval_every_steps": 150}),
    "saved-often": ("full", STEADY | {"train.checkpoint_every_steps": 2}),
    "slower-stages": (
        "gradual",
        STEADY | {"tuning.stage_length": 30, "tuning.layers_per_stage": 1},
    ),
    "stages": ("gradual", STEADY | {"tuning.stage_length": 30, "tuning.layers_per_stage": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_after_ten_steps_the_time_left_is_nearly_what_it_takes(
    case, tiny_settings, tiny_families, tmp_path, monkeypatch
):
    strategy, changes = CASES[case]
    scratch = {"model.from_scratch": True, "tuning.frozen_dropout": True}
    settings = tiny_settings("classification", strategy, tiny_families["bert"], **scratch | changes)
    run = prepare(settings, Report(quiet=True))
    world: Any = World(grows=case == "slower-stages")
    watched = Watched(lambda: world.now)
    begin = loop.first(run, tmp_path / "run", watched, world)
    world.patch(monkeypatch)
    last = fit(begin, tmp_path / "run", watched, world, world, Around())
    assert last.last.step == len(watched.left) == 150
    assert len(last.programs) == (4 if "stages" in case else 1)
    starts, checked = last.last.progress.stage_starts, 0
    for step, (at, left) in enumerate(watched.left, 1):
        if any(start < step < start + 10 for start in starts):
            continue
        if case == "slower-stages" and step <= starts[-1]:
            continue  # nobody can know of them
        checked += 1
        # The last steps may be told to 2 s; of evaluations of which none was timed, to their 3.7 s.
        least = 4.0 if case == "one-evaluation" else 2.0
        assert left == pytest.approx(world.now - at, rel=0.3, abs=least), f"step {step} of {case}"
    assert checked == (150 - 90 - 9 if case == "slower-stages" else 150 - 9 * len(starts))
    if case != "one-evaluation":
        assert left == pytest.approx(world.EVALUATION + world.SAVE, abs=0.01)


def test_a_run_tells_the_time_left_and_times_its_evaluations(tiny_settings, tiny_weights, tmp_path):
    model = tiny_weights("classification", "bert", 1)
    steps = {"train.num_steps": 4, "train.eval_every_steps": 2}
    settings = tiny_settings("classification", "head", model, **steps)
    shown, timed = Watched(), []
    hook = Hook(lambda moment: timed.append(moment.tally.evaluating), lambda moment: True)
    train(settings, tmp_path / "run", shown, hooks=[hook])
    assert [seconds > 0 for seconds in timed] == [False, False, True, True]  # that of step 2
    assert len(shown.left) == 4
    left = [seconds for _, seconds in shown.left]
    assert all(seconds > 0 for seconds in left[1:])
    assert left[3] == timed[2]  # what the evaluation of step 2 took
