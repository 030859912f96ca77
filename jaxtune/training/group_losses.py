"""Losses of groups of texts by their embeddings: a group has an anchor, a positive, and negatives.

Each loss takes the embeddings of a whole batch, wherever its texts lie, and reads which text is
which member of which group from the batch (`data.text.grouped`). Filling counts for nothing. For
several microbatches or devices `joint_sums` brings the outputs of all together.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch, LossFn, Mean, weighted_mean
from jaxtune.data.batching.groups import Groups
from jaxtune.models.pooling import unit_length

SCALE = 20.0
"""What cosines are multiplied by, a temperature of 0.05."""

_LEAST = 1e-12  # of a norm


class Sizes(NamedTuple):
    """Of the groups of the data: the fewest and the most texts of one."""

    least: int
    most: int


def sizes_of(groups: Groups) -> Sizes:
    """The fewest and the most texts of a group."""
    return Sizes(int(groups.sizes.min()), groups.largest)


class Table(NamedTuple):
    """The outputs of a batch by group and member, groups in the order of their ids.

    Attributes:
      outputs: float32; 0 where there is no text.
      present: where there is one.
      labels: of each text, where the batch has any.
    """

    outputs: Float[Array, "g m ..."]
    present: Bool[Array, "g m"]
    labels: Float[Array, "g m"] | None


def by_group(outputs: Float[Array, "b ..."], batch: Batch, sizes: Sizes) -> Table:
    """Gathers outputs from where texts lie to where their groups are.

    Args:
      outputs: of padded texts [b ...], of packed ones [b s ...].
      batch: with `group_ids`, `members` and `weight`, [b] or [b s]; texts of weight 0 are none.
      sizes: of all groups.

    Returns:
      A table with room for as many groups as so many texts can have.
    """
    place, most = batch["group_ids"].ndim, sizes.most
    real = batch["weight"].reshape(-1) > 0
    last = jnp.iinfo(jnp.int32).max  # after all groups: what is no text
    ids = jnp.where(real, batch["group_ids"].reshape(-1), last)
    count = max(1, len(ids) // sizes.least)
    _, groups = jnp.unique(ids, return_inverse=True, size=count, fill_value=last)
    cells = jnp.where(real, groups.reshape(-1) * most + batch["members"].reshape(-1), count * most)

    def laid(values: Array) -> Array:
        flat = values.reshape(-1, *values.shape[place:])
        room = jnp.zeros((count * most, *flat.shape[1:]), flat.dtype)
        return room.at[cells].set(flat, mode="drop").reshape(count, most, *flat.shape[1:])

    labels = laid(batch["labels"].astype(jnp.float32)) if "labels" in batch else None
    return Table(laid(outputs.astype(jnp.float32)), laid(real), labels)


def make_ranking(sizes: Sizes, scale: float = SCALE) -> LossFn:
    """Makes the cross-entropy of an anchor's own positive among all documents of the batch.

    `-log(exp(t cos(a_i, p_i)) / sum_d exp(t cos(a_i, d)))`, the mean over the anchors a_i, where d
    goes through the positives and the negatives of all groups.

    Args:
      sizes: of the groups.
      scale: t.

    Source: Henderson et al. 2017, Efficient Natural Language Response Suggestion for Smart Reply,
    section 4.4; van den Oord et al. 2018, Representation Learning with Contrastive Predictive
    Coding, equation 4.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        table = by_group(outputs, batch, sizes)
        unit = unit_length(table.outputs)  # [g m d]
        documents = unit[:, 1:].reshape(-1, unit.shape[-1])  # [g (m-1) d] -> [n d]
        z = scale * _products(unit[:, 0], documents)  # [g n]
        known = table.present[:, 1:].reshape(-1)
        z = jnp.where(known, z, jnp.finfo(jnp.float32).min)
        own = jnp.arange(len(z)) * (unit.shape[1] - 1)  # where the positive of each group is
        right = jnp.take_along_axis(z, own[:, None], axis=1)[:, 0]
        losses = jax.nn.logsumexp(z, axis=1) - right
        return weighted_mean(*_where_whole(losses, table))

    return loss_fn


def make_cosent(sizes: Sizes, scale: float = SCALE) -> LossFn:
    """Makes the loss of pairs whose cosines are in another order than their scores.

    `log(1 + sum exp(t (cos_i - cos_j)))` over all i, j of the batch with score_i < score_j. It is
    one number of a batch; its weight is that of the pairs.

    Args:
      sizes: of the groups, which are pairs with a score as their label.
      scale: t.

    Source: Su 2022, CoSENT, https://kexue.fm/archives/8847; as sentence-transformers computes it.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        table = by_group(outputs, batch, sizes)
        cosines, real = scale * _cosines(table), _are_pairs(table)
        scores = _scores(table)
        wrong = (scores[:, None] < scores) & real[:, None] & real  # [g g]
        gaps = jnp.where(wrong, cosines[:, None] - cosines, jnp.finfo(jnp.float32).min)
        every = jnp.concatenate([jnp.zeros(1), gaps.reshape(-1)])
        count = real.sum().astype(jnp.float32)
        return Mean(jax.nn.logsumexp(every) * count, count)

    return loss_fn


def make_cosine_error(sizes: Sizes) -> LossFn:
    """Makes the squared error `(cos(a, b) - score)^2` of pairs, their mean.

    Args:
      sizes: of the groups: an anchor a, and one text or several, b, each with a score from -1 to 1
        as its label.

    Source: Reimers and Gurevych 2019, Sentence-BERT, section 3, the regression objective.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        table = by_group(outputs, batch, sizes)
        assert table.labels is not None, "pairs without a score"
        unit = unit_length(table.outputs)  # [g m d]
        cosines = (unit[:, :1] * unit[:, 1:]).sum(-1)  # [g m-1]
        real = table.present[:, :1] & table.present[:, 1:]
        errors = jnp.where(real, cosines - table.labels[:, 1:], 0.0)
        return weighted_mean(errors**2, real.astype(jnp.float32))

    return loss_fn


def make_triplet(sizes: Sizes, margin: float = 1.0) -> LossFn:
    """Makes `max(0, |a - p| - |a - n| + margin)`, the mean over the negatives and the groups.

    Args:
      sizes: of the groups, each with a negative at least.
      margin: by which a negative is to be farther than the positive, in Euclidean distance.

    Source: Reimers and Gurevych 2019, Sentence-BERT, section 3, the triplet objective.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        table = by_group(outputs, batch, sizes)
        x = table.outputs
        squares = jnp.sum((x[:, :1] - x[:, 1:]) ** 2, axis=-1)  # [g m-1]
        distances = jnp.sqrt(jnp.maximum(squares, _LEAST**2))
        losses = jax.nn.relu(distances[:, :1] - distances[:, 1:] + margin)  # [g m-2]
        real = table.present[:, 2:].astype(jnp.float32)
        each = (losses * real).sum(1) / jnp.maximum(real.sum(1), 1.0)
        return weighted_mean(*_where_whole(each, table))

    return loss_fn


def make_matryoshka(inner: LossFn, dims: Sequence[int]) -> LossFn:
    """Makes the sum of a loss over embeddings cut to their first dimensions, each of norm 1.

    Args:
      inner: of embeddings.
      dims: how many dimensions are kept, each in turn.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, equation 1, with weights of 1.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        if max(dims) > outputs.shape[-1]:
            raise UserError(
                f"config.loss.matryoshka_dims has {max(dims)}, but embeddings have"
                f" {outputs.shape[-1]} dimensions: expected at most so many."
            )
        found = [inner(unit_length(outputs[..., :dim]), batch) for dim in dims]
        return Mean(jnp.stack([loss.total for loss in found]).sum(), found[0].weight)

    return loss_fn


_products = partial(jnp.einsum, "id,jd->ij", precision=jax.lax.Precision.HIGHEST)


def _cosines(table: Table) -> Float[Array, " g"]:
    unit = unit_length(table.outputs)
    return (unit[:, 0] * unit[:, 1]).sum(-1)


def _scores(table: Table) -> Float[Array, " g"]:
    assert table.labels is not None, "pairs without a score"
    return table.labels[:, 0]


def _are_pairs(table: Table) -> Bool[Array, " g"]:
    return table.present[:, 0] & table.present[:, 1]


def _where_whole(
    losses: Float[Array, " g"], table: Table
) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
    """Losses of groups and their weights, 0 for rows of the table that are no group."""
    real = _are_pairs(table)
    return jnp.where(real, losses, 0.0), real.astype(jnp.float32)
