"""Programs of a step: one for each shape, whichever thread compiles it."""

import threading

import jax.numpy as jnp
import pytest

from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook
from jaxtune.run.train import train
from jaxtune.training.compiled import Compiled


def batch(size):
    return {"input_ids": jnp.arange(2 * size).reshape(2, size)}


@pytest.fixture
def traced():
    """(the step, sizes of the batches that it was traced for, and in which thread)."""
    seen = []

    def step(scale, batch):
        seen.append((batch["input_ids"].shape[1], threading.current_thread().name))
        return scale * batch["input_ids"].sum()

    return Compiled(step), seen


def test_what_was_compiled_ahead_is_not_compiled_again(traced):
    step, seen = traced
    step.ahead(map(batch, (3, 5, 3)), jnp.float32(2))
    background = next(t for t in threading.enumerate() if t.name == "compiling")
    background.join()
    assert step.waited == 0 < step.seconds
    assert [step.knows(batch(size)) for size in (3, 4, 5)] == [True, False, True]
    assert [float(step(jnp.float32(2), batch(size))) for size in (5, 4, 3)] == [90, 56, 30]
    assert seen == [(3, "compiling"), (5, "compiling"), (4, "MainThread")]
    assert 0 < step.waited < step.seconds
    assert step.shapes == [(2, 3), (2, 4), (2, 5)]


def test_who_needs_a_program_that_is_being_compiled_waits_for_it():
    begun, go, seen = threading.Event(), threading.Event(), []

    def step(batch):
        seen.append(threading.current_thread().name)
        begun.set()
        assert go.wait(60)
        return batch["input_ids"].sum()

    compiled = Compiled(step)
    compiled.ahead([batch(3)])
    assert begun.wait(60)
    assert not compiled.knows(batch(3))
    threading.Timer(0.05, go.set).start()
    assert int(compiled(batch(3))) == 15
    assert seen == ["compiling"]


def test_programs_are_compiled_side_by_side():
    both, seen = threading.Barrier(2), []

    def step(batch):
        both.wait(60)  # until the other is being traced too
        seen.append(batch["input_ids"].shape[1])
        return batch["input_ids"].sum()

    compiled = Compiled(step)
    compiled.ahead(map(batch, (3, 4, 3, 5, 6)), threads=2)
    for thread in threading.enumerate():
        if thread.name == "compiling":
            thread.join(60)
    assert sorted(seen) == [3, 4, 5, 6]
    assert all(compiled.knows(batch(size)) for size in seen)


def test_closing_ends_the_thread_after_the_program_at_hand(traced):
    step, seen = traced

    def batches():
        yield batch(3)
        step.close()
        yield batch(5)

    step.ahead(batches(), jnp.float32(1))
    for thread in threading.enumerate():
        if thread.name == "compiling":
            thread.join()
    assert [size for size, _ in seen] == [3]


def test_an_error_in_the_background_is_met_by_who_asks():
    calls = []

    def step(batch):
        calls.append(0)
        raise ValueError("as ever")

    compiled = Compiled(step)
    compiled.ahead([batch(3)])
    for thread in threading.enumerate():
        if thread.name == "compiling":
            thread.join()
    assert calls == [0]
    with pytest.raises(ValueError, match="as ever"):
        compiled(batch(3))
    assert calls == [0, 0]


def test_a_run_compiles_each_of_its_shapes_once(tiny_settings, tiny_weights, tmp_path, monkeypatch):
    """Those of later steps beside the first, and none that no step needs."""
    model = tiny_weights("classification", "bert", 1)
    more = {"data.layout": "bucketed", "train.eval_every_steps": 6, "train.batch_size": 2}
    settings = tiny_settings("classification", "full", model, **more)
    needed, given, ahead = [], [], Compiled.ahead

    def look(moment):
        batches = moment.run.data.stream.indices()
        needed.extend(next(batches)[0].length for _ in range(settings.train.num_steps))

    def note(self, batches, *args, **options):
        given.extend(batches)
        ahead(self, given, *args, **options)

    monkeypatch.setattr(Compiled, "ahead", note)
    results = train(
        settings,
        tmp_path / "run",
        Report(quiet=True),
        hooks=[Hook(look, lambda moment: moment.step == 1)],
    )
    assert [shape[1] for shape in results["compiled_train_shapes"]] == sorted({*needed})
    assert len({*needed}) > 1
    assert [shape["input_ids"].shape[1] for shape in given] == [*dict.fromkeys(needed)][1:]
