"""Outside its steps a run holds 16 bytes a parameter in training, and 4 a frozen one."""

import gc
import shutil
from functools import wraps

import jax
import jax.numpy as jnp
import pytest

from jaxtune.core import trees
from jaxtune.export import adapter_folder
from jaxtune.run import stages
from jaxtune.run import train as whole
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, Moment
from jaxtune.run.scorer import Scorer

# Nothing is learnt, so that the first evaluation is the best and is read again at the end.
STEPS = {"train.num_steps": 4, "train.eval_every_steps": 1, "optimizer.learning_rate": 1e-12}
SLACK = 300
"""Bytes of losses, scores and the weights of rows."""

PLACES = {
    "first stage": (whole, "first"),
    "evaluation": (Scorer, "__call__"),
    "saving": (Checkpoints, "save"),
    "the best": (stages, "restore_params"),
    "export": (adapter_folder, "write"),
}


def living():
    """Bytes of all numbers that may be parameters or moments; a view of an array is none more."""
    gc.collect()
    buffers = {
        shard.data.unsafe_buffer_pointer(): shard.data.nbytes
        for array in jax.live_arrays()
        if jnp.issubdtype(array.dtype, jnp.inexact)
        for shard in array.addressable_shards
    }
    return sum(buffers.values())


class Watch:
    """Notes the bytes at each of PLACES and between steps, over those that lived before.

    Attributes:
      found: (place, bytes, what the stage trains, what it does not), as the run came by.
      sizes: parameters that the present stage trains, and those that it does not.
    """

    def __init__(self, patch):
        gc.collect()
        gc.freeze()  # what lives already need not be looked at again and again
        self.before, self.found, self.sizes = living(), [], (0, 0)
        for place, (owner, name) in PLACES.items():
            patch.setattr(owner, name, self.noting(place, getattr(owner, name)))
        self.hook = Hook(self.between, lambda moment: True, self.between)

    def noting(self, place, function):
        @wraps(function)
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            if isinstance(result, Moment):
                self.look(result)
            self.note(place)
            return result

        return call

    def between(self, moment):
        self.look(moment)
        self.note("between steps")

    def look(self, moment):
        self.sizes = trees.count(moment.stage.state.params), trees.count(moment.stage.frozen)

    def note(self, place):
        self.found.append((place, living() - self.before, *self.sizes))


# A gradual run has frozen parameters in its first stage, and none in its last.
@pytest.mark.parametrize(
    ("strategy", "layers"),
    [
        pytest.param("gradual", 2, marks=pytest.mark.exhaustive),
        pytest.param("full", 1, marks=pytest.mark.exhaustive),
        ("lora", 1),
    ],
)
def test_what_a_run_holds(strategy, layers, tiny_settings, tiny_weights, tmp_path, monkeypatch):
    model = tiny_weights("classification", "bert", layers)
    settings = tiny_settings("classification", strategy, model, **STEPS)
    workdir = tmp_path / "run"
    for places in ({*PLACES, "between steps"}, {"first stage", "the best", "evaluation", "export"}):
        with monkeypatch.context() as patch:
            watch = Watch(patch)
            done = whole.train(settings, workdir, Report(quiet=True), hooks=[watch.hook])
        assert done["best_step"] == 1
        assert {place for place, *_ in watch.found} == places
        for place, size, trained, frozen in watch.found:
            assert size <= 16 * trained + 4 * frozen + SLACK, place
        assert watch.found[-1][1] < 4 * (trained + frozen) + SLACK  # of the export
        gc.unfreeze()
        shutil.rmtree(workdir / "model")  # as if it had been killed before the export
        (workdir / "results.json").unlink()
