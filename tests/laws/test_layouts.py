"""Packed, bucketed and padded batches of the same examples: the same loss and gradients.

Dropout is on, at high rates: it belongs to the tokens of the examples, not to their places. For
every text task and family, with the parameters of all strategies that add some: the gradient of
any other strategy is a part of this one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from copies import make_flat
from cover import COMBINATIONS, cover, mark_rest

from jaxtune.core import dropout, paths
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.packing import Packing, RowShape
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.setup import make_tx
from jaxtune.tasks.registry import TASKS
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition

CASES = [
    (task, family, strategy)
    for strategy in ("full+lora+adapter+prefix", "ia3")
    for task, family in COMBINATIONS
    if TASKS[task].head != "image"
    # Other heads are on the same layers.
    and (strategy != "ia3" or task in ("classification", "token_classification"))
]
SIZE, KEY = 6, jax.random.key(5)


def make_gradients(run):
    """A function: batch, key -> loss and sum of the weights, and gradients by name."""

    @jax.jit
    def compute(params, batch, key):
        def mean(params):
            loss = run.goal.loss_fn(run.tuning.apply_fn(params, batch, key=key, train=True), batch)
            return loss.total / loss.weight, loss.weight

        return jax.value_and_grad(mean, has_aux=True)(params)

    def gradients(batch, key=KEY):
        (loss, weight), grads = jax.device_get(compute(run.params, batch, key))
        return float(loss), float(weight), paths.flatten(grads)

    return gradients


def layouts(lengths, count, examples):
    """Rows of so many examples, and one row with none; of two, examples of like lengths too."""
    longest = int(lengths.max())
    packed = choose_layout("packed", lengths, SIZE)
    shape = RowShape(1 + -(-count // examples), 8 + examples * longest)
    yield packed._replace(packing=Packing((shape, RowShape(SIZE, longest)), examples))
    if examples == 2:
        yield choose_layout("bucketed", lengths, SIZE)


@pytest.mark.parametrize(("task", "family", "strategy"), mark_rest(CASES, cover(CASES)[::2]))
def test_the_layout_changes_neither_loss_nor_gradients(
    task, family, strategy, noisy_families, tiny_settings, tmp_path
):
    changes = {"model.from_scratch": True} | ({} if strategy == "ia3" else {"tuning.dropout": 0.3})
    model = make_flat(noisy_families[family], tmp_path / "flat")
    settings = tiny_settings(task, strategy, model, **changes)
    run = prepare(settings, Report())
    # Random values in the place of zeros, so that no gradient is zero.
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype("f"), run.params)
    gradients = make_gradients(run._replace(params=params))
    examples = run.data.stream.examples
    lengths = examples.lengths
    indices = np.arange(len(lengths))[:SIZE]
    draw = (0, 0)
    padded = run.data.stream.layout.place(indices, lengths)
    assert padded.rows is None
    batch = examples.collate(padded, SIZE, draw)
    loss, weight, grads = gradients(batch)
    assert weight > 0
    other_noise, *_ = gradients(batch, jax.random.key(6))
    assert abs(other_noise - loss) > 1e-4 * loss
    for layout in layouts(lengths, len(indices), 2 if strategy == "ia3" else 3):
        index = layout.place(indices, lengths)
        if layout.packing is not None and len(indices) > 1:
            assert index.rows is not None
            assert max(map(len, index.rows)) > 1
        found, found_weight, found_grads = gradients(examples.collate(index, SIZE, draw))
        assert found_weight == weight
        assert found == pytest.approx(loss, rel=1e-5)
        top = max(float(np.abs(g).max()) for g in grads.values())
        for name, grad in grads.items():
            np.testing.assert_allclose(found_grads[name], grad, atol=1e-5 * top, err_msg=name)


STRATEGIES = ["full", "last_layers", "head", "full+lora", "adapter", "prefix"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_are_the_same_packed_or_padded_in_parts_or_on_devices(
    strategy, noisy_weights, tiny_settings
):
    changes = {"tuning.dropout": 0.3} if "lora" in strategy else {}
    settings = tiny_settings(
        "classification", strategy, noisy_weights("classification", "bert"), **changes
    )
    run = prepare(settings, Report())
    examples = run.data.stream.examples
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[0])
    tx = make_tx(run, 0)
    make = partial(
        make_train_step, run.tuning.apply_fn, run.goal.loss_fn, tx, part_key=dropout.same_key
    )
    on_devices = jax.vmap(
        make(axis_name="data"), in_axes=(None, None, 0), out_axes=None, axis_name="data"
    )

    def sharded(state, frozen, batch):
        shards = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
        return on_devices(state, frozen, shards)

    ways = {
        "padded": (run.data.stream.layout, make()),
        "packed": (choose_layout("packed", examples.lengths, 4), make()),
        "in parts": (run.data.stream.layout, make(num_microbatches=2)),
        "on devices": (run.data.stream.layout, sharded),
    }
    found = {}
    for way, (layout, step) in ways.items():
        state, step = init_state(trainable, tx, KEY), jax.jit(step)
        for epoch in range(2):
            for indices in layout.order(examples.lengths, 0, epoch):
                index = layout.place(indices, examples.lengths)
                batch = jax.tree.map(jnp.asarray, examples.collate(index, 4, (0, epoch)))
                state, _ = step(state, frozen, batch)
        found[way] = paths.flatten(state.params)
    for way, leaves in found.items():
        for name, leaf in found["padded"].items():
            np.testing.assert_allclose(leaves[name], leaf, atol=1e-5, err_msg=f"{way}: {name}")
