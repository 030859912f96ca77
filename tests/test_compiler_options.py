"""A training step keeps no more than one gradient of its parameters alive."""

import jax
import jax.numpy as jnp
import pytest

from jaxtune.core import trees
from jaxtune.core.device import this_device
from jaxtune.core.types import Mean
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.training.compiler_options import least_memory
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step

DEPTH, WIDTH = 24, 128


def chain(params, batch, *, key, train):
    """Many layers, each with more weights than a batch has features."""
    x = batch["x"]
    for i in range(DEPTH):
        x = jnp.tanh(x @ params[f"up{i}"]) @ params[f"down{i}"]
    return x


@pytest.fixture(scope="module")
def lowered():
    """(the step, bytes of the parameters)."""
    shapes = {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    params = {f"{n}{i}": jnp.ones(s) / WIDTH for n, s in shapes.items() for i in range(DEPTH)}
    tx = make_optimizer("adamw", 1e-3, {name: "trainable" for name in params})

    def loss(outputs, batch):
        return Mean(jnp.sum(outputs**2), jnp.float32(len(outputs)))

    step = jax.jit(make_train_step(chain, loss, tx), donate_argnums=0)
    state = init_state(params, tx, jax.random.key(0))
    frozen = dict.fromkeys(params)
    return step.lower(state, frozen, {"x": jnp.ones((2, WIDTH))}), trees.num_bytes(params)


def test_no_more_than_one_gradient_is_alive(lowered):
    step, size = lowered
    temporaries = step.compile(least_memory(this_device())).memory_analysis().temp_size_in_bytes
    assert size <= temporaries < 1.1 * size
    by_default = step.compile().memory_analysis().temp_size_in_bytes
    assert by_default > 1.3 * size, "the option has become the default: remove it"


def test_a_run_compiles_its_steps_so(tiny_settings, tiny_weights, monkeypatch):
    compiled, told = jax.stages.Lowered.compile, []

    def note(self, compiler_options=None, **rest):
        told.append(compiler_options)
        return compiled(self, compiler_options, **rest)

    model = tiny_weights("classification", "bert", 1)
    run = prepare(tiny_settings("classification", "full", model), Report(quiet=True))
    stage = stages.begin(run, 0, run.params)
    _, batch = next(stage.loader.on_devices(0, 0))
    monkeypatch.setattr(jax.stages.Lowered, "compile", note)
    stage.step.program(stage.state, stage.frozen, batch)
    assert told == [dict(least_memory(this_device()))]
