"""Losses and scores of groups by one number a member, against float64 and pytrec_eval."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxtune.data.batching.groups import groups_of
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.packing import Packing, RowShape
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples
from jaxtune.data.text.tokens import join
from jaxtune.tasks import multiple_choice, ranking_scores
from jaxtune.training.group_losses import Sizes
from jaxtune.training.ranking_losses import make_listwise, pointwise

SIZES = np.array([3, 1, 4, 2, 5])
RELEVANCE = np.array([0, 2, 1, 1, 0, 0, 0, 0, 0.5, 1, 1, 0, 0, 3, 0], np.float32)
"""The third group has nothing relevant."""


@pytest.fixture(scope="module")
def given():
    """(examples, scores of each in float32)."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(5, 90, rng.integers(2, 9)).tolist() for _ in RELEVANCE]
    examples = GroupedExamples(Examples(join(ids, None, 0), RELEVANCE), groups_of(SIZES))
    return examples, rng.normal(0, 3, len(ids)).astype("f")


def batches(examples, z):
    """Padded, with filling; and packed, with examples out of order."""
    order = np.array([4, 0, 1, 2, 14, 13, 5, 6, 7, 3, 8, 9, 10, 11, 12])
    padded = choose_layout("padded", examples.lengths, 20)
    packed = padded._replace(kind="packed", packing=Packing((RowShape(6, 32), RowShape(20, 16)), 6))
    for layout in (padded, packed):
        batch = layout.collate(examples, layout.place(order, examples.lengths))
        assert len(batch["weight"]) == (20 if layout is padded else 6)
        outputs = np.where(batch["weight"] > 0, z[batch["example_ids"]], 7.0)  # filling has outputs
        yield jax.tree.map(jnp.asarray, batch), jnp.asarray(outputs[..., None])


def by_hand(z, labels):
    """The listwise loss and its gradient."""
    losses, gradient, start = [], np.zeros(len(z)), 0
    for size in SIZES:
        own = slice(start, start + size)
        start += size
        q, log_p = labels[own].astype(float), log_softmax(z[own].astype(float))
        if q.sum() > 0:
            losses.append(-(q / q.sum() * log_p).sum())
            gradient[own] = np.exp(log_p) - q / q.sum()
    return np.sum(losses), len(losses), gradient


def test_the_listwise_loss_is_that_of_each_group_in_any_layout(given):
    examples, z = given
    total, count, gradient = by_hand(z, RELEVANCE)
    loss_fn = jax.jit(make_listwise(Sizes(1, 5)))
    for batch, outputs in batches(examples, z):
        found = loss_fn(outputs, batch)
        assert float(found.weight) == count == 4
        assert float(found.total) == pytest.approx(total, rel=1e-6)
        grads = jax.grad(lambda x, batch=batch: loss_fn(x, batch).total)(outputs)[..., 0]
        real = np.asarray(batch["weight"]) > 0
        ids = np.asarray(batch["example_ids"])[real]
        np.testing.assert_allclose(np.asarray(grads)[real], gradient[ids], atol=1e-6)
        assert not np.asarray(grads)[~real].any()


def test_the_pointwise_loss_is_that_of_each_pair_in_any_layout(given):
    examples, z = given
    y = np.minimum(RELEVANCE, 1).astype(float)
    examples = examples._replace(texts=examples.texts._replace(labels=y.astype("f")))
    wanted = np.sum(y * np.logaddexp(0, -z.astype(float)) + (1 - y) * np.logaddexp(0, z))
    for batch, outputs in batches(examples, z):
        found = pointwise(outputs, batch)
        assert float(found.weight) == len(z)
        assert float(found.total) == pytest.approx(wanted, rel=1e-6)


def test_scores_are_those_of_pytrec_eval(golden):
    wanted = json.loads((golden.parent / "groups" / "ranking.json").read_text())
    queries = wanted["queries"]
    groups = groups_of(np.array([len(query["grades"]) for query in queries]))
    z, grades = (
        np.concatenate([query[name] for query in queries]).astype("f")
        for name in ("scores", "grades")
    )
    found = ranking_scores.scores(z, groups, grades)
    for name, value in wanted["scores"].items():
        assert 0 < value < 1
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_the_loss_of_scores_is_the_listwise_one_and_equal_scores_help_nobody(given):
    examples, z = given
    total, count, _ = by_hand(z, RELEVANCE)
    groups = examples.groups
    found = ranking_scores.scores(z, groups, RELEVANCE)
    assert found["loss"] == pytest.approx(total / count, rel=1e-9)
    first = np.zeros(len(z), "f")
    first[groups.offsets[:-1]] = 1  # relevant is what stands first, and all scores are the same
    ranks = ranking_scores.scores(np.zeros(len(z), "f"), groups, first)
    assert ranks["mrr@10"] == pytest.approx(np.mean(1 / SIZES))


def test_choices_are_scored_within_their_prompt():
    groups = groups_of(np.array([2, 4, 3]))
    z = np.array([0.5, -1, 9, 2, 2.5, 1, 3, 3, -2], "f")
    labels = np.array([1, 0, 0, 0, 1, 0, 0, 1, 0], "f")
    texts = Examples(join([[1]] * 9, None, 0), labels, info=[f"choice {i}" for i in range(9)])
    examples = GroupedExamples(texts, groups)
    found = multiple_choice.scores({}, z[:, None], examples)
    parts = [log_softmax(z[a:b].astype(float)) for a, b in ((0, 2), (2, 6), (6, 9))]
    wanted = -(parts[0][0] + parts[1][2] + parts[2][1]) / 3
    assert found == {"accuracy": 1 / 3, "loss": pytest.approx(wanted, rel=1e-12)}
    records = multiple_choice.decode(z[:, None], examples, ())
    assert [record["label"] for record in records] == [0, 0, 0]
    assert [record["answer"] for record in records] == ["choice 0", "choice 2", "choice 6"]
    for record, part in zip(records, parts, strict=True):
        np.testing.assert_allclose(record["probabilities"], np.exp(part), rtol=1e-12)
