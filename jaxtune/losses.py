"""Losses: each gives the weighted sum over a batch and the sum of the weights, in float32."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxtune.types import Batch, Mean, weighted_mean


def cross_entropy(outputs: Float[Array, "b c"], batch: Batch) -> Mean:
    """Softmax cross-entropy: `logsumexp(z) - z[label]` for each example.

    Args:
      outputs: logits.
      batch: `labels` int32 [b] and `weight` float32 [b].

    Returns:
      The sum of the losses, in nats, and the sum of the weights.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(
        outputs.astype(jnp.float32), batch["labels"]
    )
    return weighted_mean(losses, batch["weight"])


def squared_error(outputs: Float[Array, "b 1"], batch: Batch) -> Mean:
    """Squared error of one target: `(y - label)^2` for each example.

    Args:
      outputs: predictions.
      batch: `labels` float32 [b] and `weight` float32 [b].
    """
    errors = outputs[:, 0].astype(jnp.float32) - batch["labels"]
    return weighted_mean(errors**2, batch["weight"])
