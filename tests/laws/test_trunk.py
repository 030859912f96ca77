"""Frozen layers apart from the step: the same outputs as the whole model, kept or not.

For every task and family (some of them by default), with one trained layer and with none.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import COMBINATIONS, mark_rest
from processor import has

from jaxtune.core import paths, trees
from jaxtune.core.errors import UserError
from jaxtune.data.batching.layout import choose_layout
from jaxtune.models.trunk import STATES, make_upper_apply
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.tuning import injection

CASES = [(*pair, strategy) for strategy in ("last_layers", "head") for pair in COMBINATIONS]


@pytest.fixture
def prepare_run(tiny_weights, tiny_settings):
    """A function that prepares two epochs of three batches of four."""

    def make(task, family, strategy, **overrides):
        if task == "reranking":  # whose passages are twice as many
            overrides = {"train.batch_size": 8} | overrides
        settings = tiny_settings(task, strategy, tiny_weights(task, family), **overrides)
        return prepare(settings, Report())

    return make


DEFAULT = [
    ("question_answering", "bert", "last_layers"),
    ("masked_lm", "bert", "head"),
    ("causal_lm", "gpt2", "head"),
    ("embedding", "mpnet", "last_layers"),
    ("multiple_choice", "modernbert", "last_layers"),
    ("reranking", "deberta-v2", "last_layers"),
    ("image_classification", "vit", "last_layers"),
    ("image_classification", "resnet", "last_layers"),
]
"""Each kind of head and of layers; all pairs are exhaustive."""


@pytest.mark.parametrize(("task", "family", "strategy"), mark_rest(CASES, DEFAULT))
def test_trunk_and_rest_are_the_whole_and_what_is_kept_is_what_was_computed(
    task, family, strategy, prepare_run
):
    if (task, strategy) == ("causal_lm", "head"):
        with pytest.raises(UserError, match="word embeddings"):
            prepare_run(task, family, strategy)
        return
    run = prepare_run(task, family, strategy)
    (plan,) = run.tuning.trunks
    if not plan.depth:  # the head is the word embeddings, or all layers are the one that is trained
        assert task == "masked_lm" or (family, strategy) == ("albert", "last_layers")
        return
    stage = stages.begin(run, 0, run.params)
    assert (stage.loader.cache is None) == (task == "masked_lm")
    again = prepare_run(task, family, strategy, **{"activation_cache.enabled": False})
    without = stages.begin(again, 0, again.params).loader
    assert without.trunk is not None
    assert without.cache is None
    seen = {}
    streams = zip(stage.loader.batches(), without.batches(), strict=False)
    for (index, batch), (_, fresh) in itertools.islice(streams, 2 * run.goal.steps_per_epoch):
        real = np.asarray(batch.get("attention_mask", np.ones(batch[STATES].shape[:2]))) > 0
        real[len(index.indices) :] = False  # rows of filling
        for name, values in fresh.items():
            if name == STATES and family == "resnet" and not has("avx512f"):
                # shorter vectors round what lies at their ends otherwise than the rest
                np.testing.assert_allclose(batch[name][real], values[real], atol=2e-6)
            elif name == STATES:  # bit for bit, so that what is trained on them is the same too
                np.testing.assert_array_equal(batch[name][real], values[real])
            else:
                np.testing.assert_array_equal(batch[name], values)
        apply_fn = make_upper_apply(run.pretrained.module, plan.depth)
        batch = jax.tree.map(jnp.asarray, batch)
        params = trees.merge(stage.state.params, stage.frozen)
        found = apply_fn(params, batch, key=None, train=False)
        whole = run.data.stream.examples.collate(
            index, len(batch["weight"]), (0, len(seen) // run.goal.steps_per_epoch)
        )
        wanted = run.tuning.apply_fn(
            run.params, jax.tree.map(jnp.asarray, whole), key=None, train=False
        )
        real = np.asarray(batch["weight"]) > 0
        if task == "question_answering":  # whose loss leaves the logits of padding out
            real = (whole["attention_mask"] > 0) & real[:, None]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found[real], wanted[real], atol=2e-6)
        seen[len(seen)] = index


LAYOUTS = list(
    itertools.product(
        ("packed", "padded", "bucketed"), ("last_layers", "head", "bitfit+last_layers")
    )
)


@pytest.mark.parametrize(("layout", "strategy"), mark_rest(LAYOUTS, [("packed", "head")]))
def test_training_with_and_without_the_cache_is_the_same(layout, strategy, prepare_run):
    found = []
    for enabled in (True, False):
        run = prepare_run(
            *("classification", "bert", strategy),
            **{"activation_cache.enabled": enabled, "data.layout": layout},
        )
        stage = stages.begin(run, 0, run.params)
        assert (stage.loader.cache is not None) == (enabled and "bitfit" not in strategy)
        stream, state = stage.loader.batches(), stage.state
        for _ in range(2 * run.goal.steps_per_epoch):
            state, _ = stage.step(state, stage.frozen, next(stream)[1])
        found.append(paths.flatten(state.params))
    for name, leaf in found[0].items():
        atol = 1e-6 if layout == "packed" else 0
        np.testing.assert_allclose(leaf, found[1][name], atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize("strategy", ["last_layers", "head"])
def test_training_on_kept_states_is_the_same_packed_or_padded(
    strategy, noisy_weights, tiny_settings
):
    """Dropout too: of layers above the trunk, and of the head on one state of each example."""
    model, found = noisy_weights("classification", "bert"), []
    for layout in ("packed", "padded"):
        changes = {"data.layout": layout}
        run = prepare(tiny_settings("classification", strategy, model, **changes), Report())
        stage = stages.begin(run, 0, run.params)
        assert stage.loader.cache is not None
        stream, state = stage.loader.batches(), stage.state
        for _ in range(2 * run.goal.steps_per_epoch):
            state, info = stage.step(state, stage.frozen, next(stream)[1])
        found.append((paths.flatten(state.params), float(info.loss.value)))
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    for name, leaf in found[0][0].items():
        np.testing.assert_allclose(leaf, found[1][0][name], atol=1e-5, rtol=0, err_msg=name)


def test_a_run_that_goes_on_keeps_what_the_first_batches_gave(prepare_run):
    run = prepare_run("classification", "bert", "last_layers", **{"train.num_steps": 12})
    layout = choose_layout("packed", run.data.stream.examples.lengths, 4)
    stream = run.data.stream._replace(layout=layout)
    run = run._replace(data=run.data._replace(stream=stream))
    whole = stages.begin(run, 0, run.params).loader.batches()
    batches = [next(whole)[1] for _ in range(12)]
    for step in (1, 4, 7):
        later = stages.begin(run, 0, run.params).loader.batches(step, 0)
        for batch in batches[step:]:
            again = next(later)[1]
            np.testing.assert_array_equal(again[STATES], batch[STATES])


@pytest.mark.parametrize(
    ("changes", "depth", "reason"),
    [
        ({"tuning.frozen_dropout": True}, 0, "frozen_dropout"),
        ({"train.gradient_checkpointing": True}, 0, "gradient_checkpointing"),
        ({"data.token_dropout": 0.1}, 1, "changes the examples"),
        ({"train.num_steps": 3}, 1, "one epoch"),
        ({"activation_cache.enabled": False}, 1, "activation_cache.enabled"),
    ],
)
def test_nothing_is_kept_where_that_would_be_wrong_or_in_vain(changes, depth, reason, prepare_run):
    run = prepare_run("classification", "bert", "last_layers", **changes)
    (plan,) = run.tuning.trunks
    assert (plan.depth, plan.keeps) == (depth, False)
    assert reason in plan.reason
    stage = stages.begin(run, 0, run.params)
    assert reason in stage.loader.describe()
    _, batch = next(stage.loader.batches())
    assert (STATES in batch) == bool(depth)
    stage.step(stage.state, stage.frozen, batch)


def test_adapters_in_every_layer_leave_no_trunk(prepare_run):
    for strategy in ("full", "lora", "prefix", "bitfit", "embeddings_frozen"):
        run = prepare_run("classification", "bert", strategy)
        assert run.tuning.trunks[0].depth == 0, strategy
        assert stages.begin(run, 0, run.params).loader.describe() == ""
    run = prepare_run("classification", "bert", "gradual", **{"tuning.layers_per_stage": 1})
    assert [plan.depth for plan in run.tuning.trunks] == [2, 1, 0, 0][: len(run.tuning.trunks)]


def test_lora_in_the_upper_layer_stands_on_a_trunk(prepare_run):
    targets = {"tuning.targets": r"layer/1/.*/query/kernel$"}
    run = prepare_run("classification", "bert", "lora", **targets)
    assert run.tuning.trunks[0].depth == 1
    stage = stages.begin(run, 0, run.params)
    _, batch = next(stage.loader.batches())
    _, info = stage.step(stage.state, stage.frozen, batch)
    assert np.isfinite(float(info.loss.value))
    apply_fn = injection.adapt(run.tuning.strategy, make_upper_apply(run.pretrained.module, 1))
    batch = jax.tree.map(jnp.asarray, batch)
    found = apply_fn(run.params, batch, key=None, train=False)
    wanted = run.tuning.apply_fn(run.params, batch, key=None, train=False)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
