"""Adam's moments and counts across the stages of a run, against the equations in float64."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core import paths
from jaxtune.core.device import this_device
from jaxtune.core.types import Mean
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.run import stages
from jaxtune.run.setup import Goal, Run, Tuned
from jaxtune.settings import OptimizerSettings, Settings
from jaxtune.tasks.registry import find_task
from jaxtune.training.optimizers import named
from jaxtune.tuning import partition
from jaxtune.tuning.gradual import Gradual

NAMES = ("embeddings/w", "layer/0/w", "layer/1/w", "top/w", "top/bias")
RATE, DECAY, CLIP, LENGTH = 0.05, 0.3, 1.5, 3  # LENGTH in steps


def make_run(order):
    """What `stages` reads of a run: a model whose gradient is a known function of its leaves."""

    def apply_fn(params, batch, *, key, train):
        leaves = paths.flatten(params).values()
        total = sum((jnp.sin(x) * (1.3 + i)).sum() for i, x in enumerate(leaves))
        return total + batch["input_ids"].sum() * 0.0

    def loss_fn(outputs, batch):
        return Mean(outputs, jnp.float32(1.0))

    rng = np.random.default_rng(0)
    params = paths.unflatten({n: jnp.asarray(rng.normal(size=4), jnp.float32) for n in NAMES})
    strategy = Gradual(order, "step", LENGTH, below="^embeddings/", layers=r"^layer/(\d+)/")
    labels = partition.stages(strategy, params)

    settings = Settings(optimizer=OptimizerSettings(weight_decay=DECAY, clip_norm=CLIP))
    schedule = optax.constant_schedule(RATE)
    return Run(
        settings=settings,
        task=find_task("classification"),
        pretrained=types.SimpleNamespace(
            module=None, design=types.SimpleNamespace(device=this_device())
        ),
        params=params,
        data=types.SimpleNamespace(stream=None),
        tuning=Tuned(
            strategy=strategy,
            apply_fn=apply_fn,
            stage_labels=labels,
            trunks=(TrunkPlan(0),) * len(labels),
            multipliers=jax.tree.map(lambda _: 1.0, params),
        ),
        goal=Goal(loss_fn, named("adamw"), schedule, LENGTH, LENGTH * len(labels), "loss"),
        sharding=None,
    )


def train(run):
    """The parameters after LENGTH steps of each stage."""
    params, last = run.params, None
    batch = {"input_ids": np.zeros((1, 1), np.int32)}
    for index in range(len(run.tuning.stage_labels)):
        stage = stages.begin(run, index, params, last)
        for _ in range(LENGTH):
            state, _ = stage.step(stage.state, stage.frozen, batch)
            stage = stage._replace(state=state)
        params, last = jax.tree.map(jnp.array, stages.assemble(stage)), stage.state
        assert int(last.step) == LENGTH * (index + 1)
    return paths.flatten(params)


def reference(run):
    """AdamW leaf by leaf; the moments of a leaf begin at 0 whenever its training begins."""
    order = [*paths.flatten(run.params)]
    params = {n: np.asarray(x, np.float64) for n, x in paths.flatten(run.params).items()}
    moments = {}
    for labels in run.tuning.stage_labels:
        trained = {n for n, label in paths.flatten(labels).items() if label != partition.FROZEN}
        moments = {n: moments.get(n, (0.0, 0.0, 0)) for n in trained}
        for _ in range(LENGTH):
            grads = {n: np.cos(params[n]) * (1.3 + order.index(n)) for n in trained}
            norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
            for n, g in grads.items():
                m, v, t = moments[n]
                g = g * min(1.0, CLIP / norm)
                m, v, t = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2, t + 1
                moments[n] = m, v, t
                step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
                decay = 0.0 if n.endswith("bias") else DECAY
                params[n] = params[n] - RATE * (step + decay * params[n])
    return params


@pytest.mark.parametrize("order", ["ulmfit", "chain_thaw"])
def test_moments_go_on_where_training_does_and_begin_anew_where_it_does(order):
    run = make_run(order)
    assert len(run.tuning.stage_labels) == {"ulmfit": 4, "chain_thaw": 5}[order]
    found, expected = train(run), reference(run)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_what_an_earlier_stage_trained_is_settled():
    run = make_run("chain_thaw")
    stage = stages.begin(run, 2, run.params)  # the first layer; before it the top, the embeddings
    kept = stages.settled(run, 2, stage.frozen)
    assert set(paths.flatten(kept)) == {"embeddings/w", "top/w", "top/bias"}
    assert stages.settled(run, 0, run.params) == jax.tree.map(lambda _: None, run.params)
