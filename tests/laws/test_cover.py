"""A cover of pairs of task, family, strategy, layout, precision and placement: what a step does.

Each case trains, scores, is exported and loaded again; by default most are only traced. Batches in
another layout have the loss and the gradients of padded ones; on several devices a run is that of
one.
"""

import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from copies import make_flat
from cover import (
    CASES,
    CHOICES,
    COMBINATIONS,
    COVER,
    REFUSED,
    Case,
    by_kind,
    cover,
    groups,
    num_layers,
    pairs_of_kinds,
    values_with_kinds,
)

from jaxtune.analysis.targets import Chip, Target
from jaxtune.core import dropout, paths, trees
from jaxtune.core.device import this_device
from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import Layout, choose_layout
from jaxtune.data.batching.packing import Packing, RowShape, Use
from jaxtune.export import adapter_folder
from jaxtune.run.console import Report
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.run.prepare import prepare
from jaxtune.run.saved import open_saved
from jaxtune.run.setup import Run, make_tx
from jaxtune.run.train import product_of
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.state import TrainState, init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition

PRECISIONS = {
    "float32": {},
    "bfloat16": {"precision.compute_dtype": "bfloat16"},
    "frozen bfloat16": {"precision.frozen_dtype": "bfloat16"},
}
ROWS = Packing((RowShape(3, 40), RowShape(4, 16)), 2)
"""Two examples a row, and a row with none; of every task, so that operations are compiled once."""
TEXTS = Packing((RowShape(8, 40), RowShape(16, 16)), 3)
"""The same of groups of texts, each of which has five texts at most."""


def is_possible(case: Case) -> bool:
    """Said again, apart from the cover."""
    if (case.task, case.family) not in COMBINATIONS:
        return False
    if case.strategy == "gradual" and case.precision == "frozen bfloat16":
        return False
    has_bias = case.family != "modernbert" or case.task not in ("embedding", "few_shot")
    if case.strategy in ("bitfit", "rules") and not has_bias:
        return False
    return not any((part, case.strategy) in REFUSED for part in (case.task, case.family))


def test_every_two_values_that_can_be_together_are_in_the_cover():
    wanted = {
        pair
        for case in itertools.starmap(Case, itertools.product(*CHOICES))
        if is_possible(case)
        for pair in groups(case)
    }
    assert {pair for case in COVER for pair in groups(case)} == wanted
    assert len(COVER) == len(set(COVER)) < 225


def test_every_two_kinds_that_can_be_together_are_in_the_default_tests():
    wanted, found = (
        {pair for case in by_kind(cases) for pair in groups(case)}
        for cases in ([case for case in CASES if case.placement == "one"], [*RUN, *MET])
    )
    assert found == wanted
    assert len(RUN) < 20
    assert len(MET) < 80


def test_a_cover_of_values_has_each_value():
    kept = cover(COMBINATIONS)
    assert set(kept) < set(COMBINATIONS)
    for place in (0, 1):
        assert {case[place] for case in kept} == {case[place] for case in COMBINATIONS}


@pytest.mark.parametrize(("part", "strategy"), REFUSED)
def test_what_cannot_be_is_refused_with_a_reason(part, strategy, tiny_weights, tiny_settings):
    task, family = next(pair for pair in COMBINATIONS if part in pair)
    with pytest.raises(UserError, match=REFUSED[part, strategy]):
        prepare(tiny_settings(task, strategy, tiny_weights(task, family)), Report())


def keep_gradients() -> optax.GradientTransformation:
    """Its state is the gradient of the last step."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    return optax.GradientTransformation(init, lambda grads, *_: (grads, grads))


ON_ONE = [case for case in COVER if case.placement == "one"]
HERE = Target("cpu", Chip(this_device(), 0, 0, {}, 0, 0), tuple(jax.devices()[:1]))
RUN = values_with_kinds(ON_ONE)
"""Each kind of value runs by default, every two of them are traced; the rest is exhaustive."""
TRACED = [case for case in ON_ONE if case not in RUN]
MET = pairs_of_kinds([case for case in CASES if case.placement == "one"], RUN)
"""Of those that are traced, the ones that the default tests take."""


@pytest.fixture
def start(noisy_weights, tiny_settings):
    """A function: case -> what its first step needs."""

    def make(case):
        model = noisy_weights(case.task, case.family, num_layers(case))
        changes = {"data.layout": case.layout, "train.eval_batch_size": 8}
        changes |= PRECISIONS[case.precision]
        run = prepare(tiny_settings(case.task, case.strategy, model, **changes), Report())
        assert not run.pretrained.report.new
        return begin(case, run)

    return make


class Start(NamedTuple):
    """The first step of a case, before it is taken."""

    run: Run
    step: Any
    state: TrainState
    frozen: Any
    layout: Layout
    index: BatchIndex
    draw: tuple[int, int]
    batch: Any


def begin(case, run):
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(trainable)} == {jnp.dtype("float32")}
    low = case.precision == "frozen bfloat16"
    kept = jnp.dtype("bfloat16" if low else "float32")
    assert all(leaf.dtype == kept for leaf in jax.tree.leaves(frozen))
    tx = optax.chain(keep_gradients(), make_tx(run, 0))
    step = jax.jit(
        make_train_step(run.tuning.apply_fn, run.goal.loss_fn, tx, part_key=dropout.same_key)
    )
    init = partial(init_state, tx=tx, key=jax.random.key(0))
    state = jax.eval_shape(init, trainable) if trees.is_outline(trainable) else init(trainable)
    examples, stream = run.data.stream.examples, run.data.stream
    index, epoch = next(stream.indices())
    layout = stream.layout
    if layout.packing is not None:
        layout = layout._replace(packing=ROWS if run.data.stream.groups is None else TEXTS)
        index = layout.place(index.indices, examples.lengths)
        assert max(map(len, index.rows)) > 1
    draw = (run.settings.seed, epoch)
    batch = jax.tree.map(jnp.asarray, layout.collate(examples, index, draw))
    return Start(run, step, state, frozen, layout, index, draw, batch)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id="-".join(case), marks=() if case in MET else pytest.mark.exhaustive)
        for case in dict.fromkeys((*MET, *TRACED))
        if case not in RUN
    ],
)
def test_a_case_is_traced(case, tiny_families, tiny_settings, tmp_path):
    """From shapes alone, as a plan is made: no weight is drawn or read."""
    model = tiny_families[case.family]
    if num_layers(case) == 1:
        model = make_flat(model, tmp_path / "flat")
    changes = {"model.from_scratch": True, "data.layout": case.layout} | PRECISIONS[case.precision]
    settings = tiny_settings(case.task, case.strategy, model, **changes)
    _, step, state, frozen, *_, batch = begin(case, prepare(settings, Report(), target=HERE))
    shapes, _ = jax.eval_shape(step, state, frozen, batch)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), shapes, state)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id="-".join(case), marks=() if case in RUN else pytest.mark.exhaustive)
        for case in ON_ONE
    ],
)
def test_a_case_trains_scores_exports_and_reloads(case, start, tmp_path):
    run, step, state, frozen, layout, index, draw, batch = start(case)
    before = jax.device_get((state.params, frozen))
    first, info = step(state, frozen, batch)
    assert np.isfinite(float(info.loss.value))
    assert float(info.grad_norm) > 0

    if case.layout != "padded" and case.precision == "float32":
        examples = run.data.stream.examples
        use = Use(0.0, groups=run.data.stream.groups)
        padded = choose_layout("padded", examples.lengths, layout.batch_size, use=use)
        other = padded.collate(examples, padded.place(index.indices, examples.lengths), draw)
        wanted = step(state, frozen, jax.tree.map(jnp.asarray, other))
        check_gradients(first.opt_state[0], info, wanted[0].opt_state[0], wanted[1])

    state, info = step(first, frozen, batch)
    assert np.isfinite(float(info.loss.value))
    check_moved(before, jax.device_get((state.params, frozen)))

    params = trees.merge(state.params, frozen)
    validation = run.data.examples["validation"]
    means, outputs = predict(
        run.task, run.tuning.apply_fn, params, validation, run.data.eval_layout
    )
    scores = all_scores(run.task, means, outputs, validation)
    told = run.task.scores.higher_is_better.keys()
    if run.task.scores.of_data is not None:  # some are of other data than this
        told = {*run.task.scores.of_data(validation)}
    assert scores.keys() >= told
    adapter_folder.write(
        tmp_path, product_of(run), params, {"task": case.task, "max_length": 16}, print
    )
    saved = open_saved(str(tmp_path / "model"))
    assert saved.task.name == case.task
    model = saved.pretrained
    assert model.class_names == run.pretrained.class_names
    _, again = predict(saved.task, model.apply_fn, model.params, validation, run.data.eval_layout)
    merged = injection.is_mergeable(run.tuning.strategy) and case.strategy in ("lora", "ia3")
    # Frozen tables that are added to each other in bfloat16 are float32 in the export.
    rounded = {"bfloat16": 0.05, "frozen bfloat16": 1e-3}
    tolerance = rounded.get(case.precision, 2e-5 if merged else 0)
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=0)
    records = saved.task.output.decode(again, validation, model.class_names)
    joined = case.task in ("causal_lm", "masked_lm")  # into blocks that belong to no row
    assert len(records) == (6 if case.task == "image_classification" else 1 if joined else 5)


def check_gradients(found, info, wanted, wanted_info):
    assert float(info.loss.weight) == float(wanted_info.loss.weight) > 0
    assert float(info.loss.value) == pytest.approx(float(wanted_info.loss.value), rel=1e-5)
    wanted = paths.flatten(jax.device_get(wanted))
    top = max(float(np.abs(g).max()) for g in wanted.values())
    for name, grad in paths.flatten(jax.device_get(found)).items():
        np.testing.assert_allclose(grad, wanted[name], atol=1e-5 * top, err_msg=name)


def check_moved(before, after):
    """What is trained, and nothing else."""
    (old, frozen), (new, still) = before, after
    jax.tree.map(np.testing.assert_array_equal, frozen, still)
    old, new = paths.flatten(old), paths.flatten(new)
    moved = [name for name in old if not np.array_equal(old[name], new[name])]
    assert moved
    return moved


def predict(task, apply_fn, params, examples, layout):
    step = jax.jit(make_eval_step(apply_fn, task.loss.metrics, task.output.fetch))
    no_holes = jax.tree.map(lambda _: None, params)
    return predict_all(
        lambda batch: step(params, no_holes, batch),
        examples,
        layout,
        per_token=task.output.per_token,
    )
