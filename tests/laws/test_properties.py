"""Properties of whole kinds of inputs, drawn by hypothesis: packing, partition, files, scores."""

import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxtune.core import paths, trees
from jaxtune.core.errors import UserError
from jaxtune.data.batching.layout import choose_layout
from jaxtune.models import convert
from jaxtune.models.design import Outputs, make_design
from jaxtune.models.source import read_source
from jaxtune.tasks import classification, multi_label, regression
from jaxtune.tuning import partition
from jaxtune.tuning.selective import Rules

drawn = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@drawn
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=50),
    size=st.integers(1, 9),
    multiple=st.sampled_from((1, 1, 2, 4)),
    kind=st.sampled_from(("packed", "packed", "bucketed", "padded")),
    seed=st.integers(0, 3),
)
def test_each_example_lies_once_in_a_row_that_holds_it(lengths, size, multiple, kind, seed):
    lengths = np.array(lengths)
    layout = choose_layout(kind, lengths, size, None, multiple)
    orders = (layout.order(lengths, seed, 1), layout.eval_order(lengths))
    for order in orders:
        placed = [layout.place(batch, lengths) for batch in order]
        seen = []
        for index in placed:
            assert layout.num_rows(index) % multiple == 0
            rows = index.rows or tuple((i,) for i in range(len(index.indices)))
            seen += [int(index.indices[i]) for row in rows for i in row]
            for row in rows:  # one after the other they fit, so that none lies on another
                assert sum(lengths[index.indices[i]] for i in row) <= index.length
        assert sorted(seen) == list(range(len(lengths)))


keys = st.text("abc", min_size=1, max_size=2)
shapes = st.lists(st.integers(1, 3), max_size=3)
trees_of_shapes = st.recursive(
    shapes.map(tuple), lambda inner: st.dictionaries(keys, inner, min_size=1), max_leaves=6
)


@st.composite
def parameters(draw):
    """A tree with two leaves or more."""
    tree = {"x": draw(trees_of_shapes), "y": draw(trees_of_shapes)}
    rng = np.random.default_rng(0)
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), tree, is_leaf=is_shape)


@drawn
@given(parameters(), st.data())
def test_a_partition_gives_each_leaf_one_label_and_is_undone_by_merge(params, data):
    names, flat = paths.leaf_names(params), paths.flatten(params)
    assert jax.tree.structure(paths.unflatten(flat)) == jax.tree.structure(params)
    train = data.draw(st.sets(st.sampled_from(names)))
    rules = [f"^{name}$=trainable" for name in sorted(train)]
    rules += [".*=frozen"]
    if not train:
        with pytest.raises(UserError, match="nothing to train"):
            partition.label(Rules(tuple(rules)), params)
        return
    labels = partition.label(Rules(tuple(rules)), params)
    assert paths.flatten(labels) == {
        name: partition.TRAINABLE if name in train else partition.FROZEN for name in names
    }
    trainable, frozen = partition.partition(params, labels)
    assert {*paths.leaf_names(trainable)} == train
    assert {*paths.leaf_names(frozen)} == {*names} - train
    for halves in ((trainable, frozen), (frozen, trainable)):
        merged = trees.merge(*halves)
        assert jax.tree.structure(merged) == jax.tree.structure(params)
        assert all(map(np.array_equal, jax.tree.leaves(merged), jax.tree.leaves(params)))


@drawn
@given(
    module=st.sampled_from(("a/query", "h/0/attn/c_attn", "mlp/c_fc", "c_proj", "x/embeddings")),
    last=st.sampled_from(("kernel", "bias", "scale", "embedding", "mean", "var")),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    layout=st.sampled_from(("torch", "flax")),
)
def test_a_leaf_in_a_file_comes_back(module, last, shape, layout):
    leaf = f"{module}/{last}"
    value = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    stored = convert.to_file(leaf, value, layout)
    assert stored.flags.c_contiguous
    assert stored.shape == convert.file_shape(leaf, value.shape, layout)
    np.testing.assert_array_equal(convert.from_file(leaf, stored, layout), value)


def test_names_in_torch_are_unique(tiny_families):
    for family, folder in tiny_families.items():
        source = read_source(folder)
        head = max(source.family.heads, key=lambda name: len(source.family.heads[name].modules))
        leaves = paths.leaf_names(make_design(source, head, Outputs(2, ("a", "b"))).shapes)
        assert len({*map(convert.torch_name, leaves)}) == len(leaves), family


@st.composite
def decisions(draw):
    """Labels of some of the classes, the scores that a model gives, and how many classes it has."""
    known, beyond = draw(st.integers(2, 5)), draw(st.integers(0, 2))
    count = draw(st.integers(1, 30))
    classes = draw(st.sets(st.integers(0, known + beyond - 1), min_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    labels = rng.choice(sorted(classes), count)
    return labels, rng.normal(size=(count, known)).astype(np.float32), known + beyond


@drawn
@given(decisions())
def test_scores_of_classes_are_those_of_scikit_learn(drawn_decisions):
    labels, outputs, count = drawn_decisions
    found = classification.scores({}, outputs, SimpleNamespace(labels=labels))
    table = np.zeros((count, count))
    for right, predicted in zip(labels, outputs.argmax(1), strict=True):
        table[right, predicted] += 1
    hits, occurring = table.diagonal(), table.sum(0) + table.sum(1) > 0
    f1 = 2 * hits[occurring] / (table.sum(0) + table.sum(1))[occurring]
    assert found["accuracy"] == pytest.approx(hits.sum() / len(labels))
    assert found["macro_f1"] == pytest.approx(f1.mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class alone
        mcc = metrics.matthews_corrcoef(labels, outputs.argmax(1))
    assert found["mcc"] == pytest.approx(mcc)


@drawn
@given(decisions())
def test_scores_of_sets_of_classes_are_those_of_scikit_learn(drawn_decisions):
    labels, outputs, count = drawn_decisions
    rng = np.random.default_rng(len(labels))
    sets = (rng.random((len(labels), count)) < 0.3).astype(np.float32)
    sets[:, labels[0]] = 0  # a class that is absent
    found = multi_label.scores({}, outputs, SimpleNamespace(labels=sets))
    predicted = np.zeros_like(sets)
    predicted[:, : outputs.shape[1]] = outputs > 0
    for mean in ("micro", "macro"):
        right = metrics.f1_score(sets, predicted, average=mean, zero_division=0)
        assert found[f"{mean}_f1"] == pytest.approx(right)
    assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(sets, predicted))


@drawn
@given(decisions(), st.booleans())
def test_scores_of_numbers_are_those_of_numpy(drawn_decisions, is_flat):
    labels, outputs, _ = drawn_decisions
    targets = labels[:, None] + np.random.default_rng(1).normal(size=outputs.shape)
    if is_flat:
        targets, outputs = targets[:, 0], outputs[:, :1]
    found = regression.scores({}, outputs, SimpleNamespace(labels=targets))
    columns = targets.reshape(outputs.shape)
    assert found["mse"] == pytest.approx(metrics.mean_squared_error(columns, outputs))
    if len(labels) > 2:
        pairs = zip(outputs.T.astype(float), columns.T, strict=True)
        right = [np.corrcoef(one, other)[0, 1] for one, other in pairs]
        assert found["pearson"] == pytest.approx(np.mean(right), abs=1e-6)
