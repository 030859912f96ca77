"""Losses of pairs by one score each: of each by itself, or of those of a group together."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean, weighted_mean
from jaxtune.training.group_losses import Sizes, by_group
from jaxtune.training.losses import binary_cross_entropy


def pointwise(outputs: Float[Array, "... 1"], batch: Batch) -> Mean:
    """`-y log s(z) - (1 - y) log s(-z)` of each pair.

    Args:
      outputs: z, [b 1] or, of packed rows, [b s 1].
      batch: `labels` y from 0 to 1 and `weight`, float32 [b] or [b s].
    """
    labels = batch["labels"].astype(jnp.float32).reshape(outputs.shape)
    return binary_cross_entropy(outputs, {**batch, "labels": labels})


def make_listwise(sizes: Sizes) -> LossFn:
    """Makes the cross-entropy of the labels of a group by the softmax of its scores.

    `-sum_m q_m log p_m`, with `p = softmax(z)` over the members of the group and `q_m = y_m / sum
    y`: the mean over the groups. With one y of 1 it is that of the one right choice. A group of
    which all y are 0 has no part.

    Args:
      sizes: of the groups, whose labels y are at least 0.

    Source: Cao et al. 2007, Learning to Rank: From Pairwise Approach to Listwise Approach, section
    4.2; Bruch et al. 2019, An Analysis of the Softmax Cross Entropy Loss for Learning-to-Rank.
    """

    def loss_fn(outputs: Float[Array, "b ..."], batch: Batch) -> Mean:
        table = by_group(outputs, batch, sizes)
        assert table.labels is not None, "groups without labels"
        z = jnp.where(table.present, table.outputs[..., 0], jnp.finfo(jnp.float32).min)  # [g m]
        y = jnp.where(table.present, table.labels, 0.0)
        total = y.sum(1)
        q = y / jnp.where(total > 0, total, 1.0)[:, None]
        losses = -(q * jax.nn.log_softmax(z, axis=1)).sum(1)
        return weighted_mean(losses, (total > 0).astype(jnp.float32))

    return loss_fn
