"""Losses of groups against sentence-transformers' own in float64, wherever the texts lie."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.training import group_losses
from jaxtune.training.group_losses import Sizes, by_group

CASES = {
    "ranking": (lambda sizes: group_losses.make_ranking(sizes), 2),
    "ranking, negatives": (lambda sizes: group_losses.make_ranking(sizes), 4),
    "ranking, scale 7": (lambda sizes: group_losses.make_ranking(sizes, 7.0), 3),
    "cosent": (lambda sizes: group_losses.make_cosent(sizes), 2),
    "cosine_error": (lambda sizes: group_losses.make_cosine_error(sizes), 2),
    "triplet": (lambda sizes: group_losses.make_triplet(sizes), 3),
    "matryoshka": (
        lambda sizes: group_losses.make_matryoshka(group_losses.make_cosent(sizes), (6, 3, 2)),
        2,
    ),
}


@pytest.fixture(scope="module")
def wanted(golden):
    return json.loads((golden.parent / "groups" / "losses.json").read_text())


def batch_of(x, scores, rng, slots=None, filling=5):
    """Texts in a random order, with filling between them; packed where there are slots.

    Returns:
      (outputs, batch, where each text [g m] lies among the flat outputs).
    """
    count, members, width = x.shape
    total = count * members + filling
    if slots is not None:
        total = -(-total // slots) * slots
    places = rng.permutation(total)[: count * members]
    outputs = rng.normal(size=(total, width)).astype("f") * 50  # what filling gives means nothing
    outputs[places] = x.reshape(-1, width)
    names = {"group_ids": 3 + 2 * np.arange(count).repeat(members)[:, None]}
    names["members"] = np.tile(np.arange(members), count)[:, None]
    batch = {}
    for name, values in names.items():
        batch[name] = np.zeros(total, np.int32)
        batch[name][places] = values[:, 0]
    batch["weight"] = np.zeros(total, np.float32)
    batch["weight"][places] = 1
    if scores is not None:
        batch["labels"] = np.zeros(total, np.float32)
        batch["labels"][places] = np.repeat(scores, members)
    if slots is not None:
        batch = {name: values.reshape(-1, slots) for name, values in batch.items()}
        outputs = outputs.reshape(-1, slots, width)
    return outputs, batch, places


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("slots", [None, 4])
def test_losses_are_those_of_sentence_transformers(name, slots, wanted):
    make, members = CASES[name]
    x = np.array(wanted["embeddings"], np.float32)[:, :members]
    scores = (
        np.array(wanted["scores"]) if name in ("cosent", "cosine_error", "matryoshka") else None
    )
    outputs, batch, places = batch_of(x, scores, np.random.default_rng(1), slots)
    loss_fn = make(Sizes(members, members))

    def mean(outputs):
        loss = loss_fn(outputs, batch)
        return loss.total / loss.weight, loss.weight

    (loss, weight), grad = jax.jit(jax.value_and_grad(mean, has_aux=True))(outputs)
    assert float(weight) == len(x)
    found = wanted["losses"][name]
    assert float(loss) == pytest.approx(found["loss"], rel=2e-6)
    own = np.array(found["gradient"])[:, :members]
    flat = np.asarray(grad).reshape(-1, x.shape[-1])
    np.testing.assert_allclose(flat[places].reshape(x.shape), own, atol=2e-6 * np.abs(own).max())
    rest = np.delete(np.arange(len(flat)), places)
    assert not flat[rest].any()  # of filling


def test_groups_of_several_sizes_and_batches_of_none():
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype("f")
    outputs, batch, places = batch_of(x, None, np.random.default_rng(2))
    batch["weight"][places[2]] = 0  # the first group has no negative
    sizes, loss_fn = Sizes(2, 3), group_losses.make_ranking(Sizes(2, 3))
    table = by_group(jnp.asarray(outputs), batch, sizes)
    assert table.present.tolist()[:2] == [[True, True, False], [True] * 3]
    assert not table.present[2:].any()
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=-1, keepdims=True)
    documents = np.stack([unit[0, 1], unit[1, 1], unit[1, 2]])
    z = 20 * unit[:, 0] @ documents.T
    by_hand = np.log(np.exp(z).sum(1)) - z[[0, 1], [0, 1]]
    loss = loss_fn(jnp.asarray(outputs), batch)
    assert float(loss.weight) == 2
    assert float(loss.value) == pytest.approx(by_hand.mean(), rel=1e-5)
    nothing = batch | {"weight": np.zeros_like(batch["weight"])}
    for make, members in CASES.values():
        scored = nothing | {"labels": np.zeros_like(nothing["weight"])}
        value_and_grad = jax.value_and_grad(
            lambda out, make=make, members=members, scored=scored: make(Sizes(2, members))(
                out[..., :6], scored
            ),
            has_aux=True,
        )
        padded = jnp.asarray(np.pad(outputs, ((0, 0), (0, 3))))
        (total, weight), grad = jax.jit(value_and_grad)(padded)
        assert (float(total), float(weight)) == (0, 0)
        assert not np.asarray(grad).any()


def test_more_dimensions_than_there_are_are_refused():
    loss_fn = group_losses.make_matryoshka(group_losses.make_ranking(Sizes(2, 2)), (4, 8))
    x = np.ones((3, 2, 6), np.float32)
    outputs, batch, _ = batch_of(x, None, np.random.default_rng(0))
    with pytest.raises(UserError, match="matryoshka_dims has 8, but embeddings have 6 dimensions"):
        loss_fn(outputs, batch)
