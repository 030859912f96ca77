"""Packed, bucketed and padded batches of the same examples: the same loss and gradients.

For every text task and family, with the parameters of all strategies that add some: the gradient of
any other strategy is a part of this one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune import paths
from jaxtune.data.layout import choose_layout
from jaxtune.data.packing import Packing, RowShape
from jaxtune.models.registry import FAMILIES
from jaxtune.report import Report
from jaxtune.run import prepare
from jaxtune.state import init_state
from jaxtune.step import make_train_step
from jaxtune.tasks.registry import TASKS
from jaxtune.tuning import partition

COMBINATIONS = [
    (task, family)
    for task in TASKS
    for family in FAMILIES
    if TASKS[task].head in FAMILIES[family].heads and TASKS[task].head != "image"
]
SIZE = 6


def without_dropout(apply_fn):
    return lambda params, batch, *, key, train: apply_fn(params, batch, key=None, train=False)


def loss_and_gradients(run, batch):
    """Of the mean over the weights, by the name of the leaf."""
    apply_fn = without_dropout(run.apply_fn)

    def mean(params):
        loss = run.loss_fn(apply_fn(params, batch, key=None, train=True), batch)
        return loss.total / loss.weight, loss.weight

    (loss, weight), grads = jax.value_and_grad(mean, has_aux=True)(run.params)
    return float(loss), float(weight), paths.flatten(grads)


def layouts(lengths, count):
    """Rows of two and of three examples, then one row with none; and examples of like lengths."""
    longest = int(lengths.max())
    packed = choose_layout("packed", lengths, SIZE)
    for spare, examples in ((0, 2), (1, 3)):
        shape = RowShape(spare + -(-count // examples), 8 + examples * longest)
        yield packed._replace(packing=Packing((shape, RowShape(SIZE, longest)), examples))
    yield choose_layout("bucketed", lengths, SIZE)


@pytest.mark.parametrize("strategy", ["full+lora+adapter+prefix", "ia3"])
@pytest.mark.parametrize(("task", "family"), COMBINATIONS)
def test_the_layout_changes_neither_loss_nor_gradients(
    task, family, strategy, tiny_families, tiny_settings
):
    if strategy == "ia3" and task not in ("classification", "token_classification"):
        pytest.skip("other heads are on the same layers")
    settings = tiny_settings(task, strategy, tiny_families[family], **{"model.from_scratch": True})
    run = prepare(settings, Report())
    # Random values in the place of zeros, so that no gradient is zero.
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(run.params)))
    noise = jax.tree.unflatten(jax.tree.structure(run.params), list(keys))
    params = jax.tree.map(lambda p, k: p + 0.1 * jax.random.normal(k, p.shape), run.params, noise)
    run = run._replace(params=params)
    examples = run.examples["train"]
    lengths = examples.lengths
    indices = np.arange(len(lengths))[:SIZE]
    draw = (0, 0)
    padded = run.layout.place(indices, lengths)
    assert padded.rows is None
    batch = jax.tree.map(jnp.asarray, examples.collate(padded, SIZE, draw))
    loss, weight, grads = loss_and_gradients(run, batch)
    assert weight > 0
    for layout in layouts(lengths, len(indices)):
        index = layout.place(indices, lengths)
        if layout.packing is not None and len(indices) > 1:
            assert index.rows is not None
            assert max(map(len, index.rows)) > 1
        other = jax.tree.map(jnp.asarray, examples.collate(index, SIZE, draw))
        found, found_weight, found_grads = loss_and_gradients(run, other)
        assert found_weight == weight
        assert found == pytest.approx(loss, rel=1e-5)
        top = max(float(jnp.abs(g).max()) for g in grads.values())
        for name, grad in grads.items():
            np.testing.assert_allclose(found_grads[name], grad, atol=1e-5 * top, err_msg=name)


@pytest.mark.parametrize("strategy", ["full", "last_layers", "bitfit", "head"])
def test_a_step_on_packed_rows_is_that_on_padded_ones(strategy, tiny_weights, tiny_settings):
    model = tiny_weights("classification", "bert")
    run = prepare(tiny_settings("classification", strategy, model), Report())
    examples = run.examples["train"]
    trainable, frozen = partition.partition(run.params, run.stages[0])
    tx = run.optimizer(0)
    step = make_train_step(without_dropout(run.apply_fn), run.loss_fn, tx)
    found = []
    for layout in (run.layout, choose_layout("packed", examples.lengths, 4)):
        state = init_state(trainable, tx, jax.random.key(0))
        for epoch in range(2):
            for indices in layout.order(examples.lengths, 0, epoch):
                index = layout.place(indices, examples.lengths)
                batch = jax.tree.map(jnp.asarray, examples.collate(index, 4, (0, epoch)))
                state, _ = step(state, frozen, batch)
        found.append(paths.flatten(state.params))
    for name, leaf in found[0].items():
        np.testing.assert_allclose(found[1][name], leaf, atol=1e-5, err_msg=name)
