"""Losses: each gives the weighted sum over a batch and the sum of the weights, in float32.

`...` is b for examples, or b t for tokens; `batch["weight"]` has that shape, and is 1 where the
batch has none.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean, segment_mask, weighted_mean, weights


def cross_entropy(outputs: Float[Array, "... c"], batch: Batch) -> Mean:
    """Softmax cross-entropy: `logsumexp(z) - z[label]`, or `-sum(p log softmax(z))`.

    Args:
      outputs: logits.
      batch: `labels`, int32 [...], or float32 [... c] that add up to 1; `weight` float32 [...].

    Returns:
      The sum of the losses, in nats, and the sum of the weights.
    """
    import optax  # a tenth of a second that no prediction waits for

    logits, labels = outputs.astype(jnp.float32), batch["labels"]
    if jnp.issubdtype(labels.dtype, jnp.floating):
        losses = optax.softmax_cross_entropy(logits, labels)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return weighted_mean(losses, weights(batch, losses.shape))


def make_cross_entropy(
    class_weights: Float[Array, " c"] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> LossFn:
    """Softmax cross-entropy with options; with none of them it is `cross_entropy`.

    `-w_y (1 - p_y)^gamma sum_c q_c log p_c`, q = (1 - s) onehot(y) + s / C: the loss of an example
    counts w_y times, and so does its weight in the mean.

    Args:
      class_weights: w; None is 1.
      label_smoothing: s, from 0 to below 1.
      focal_gamma: gamma, from 0.

    Source: Szegedy et al. 2016, Rethinking the Inception Architecture, section 7; Lin et al. 2017,
    Focal Loss for Dense Object Detection, equation 4.
    """
    if class_weights is None and not label_smoothing and not focal_gamma:
        return cross_entropy

    def loss_fn(outputs: Float[Array, "... c"], batch: Batch) -> Mean:
        logits, labels = outputs.astype(jnp.float32), batch["labels"]
        count = logits.shape[-1]
        if not jnp.issubdtype(labels.dtype, jnp.floating):
            labels = jax.nn.one_hot(labels, count)
        log_probs = jax.nn.log_softmax(logits)
        smooth = (1.0 - label_smoothing) * labels + label_smoothing / count
        losses = -jnp.sum(smooth * log_probs, axis=-1)
        if focal_gamma:
            right = jnp.sum(labels * jnp.exp(log_probs), axis=-1)
            # Rounding may put p above 1, where a power of 1 - p has no gradient.
            losses = losses * jnp.maximum(1.0 - right, 1e-7) ** focal_gamma
        weight = weights(batch, losses.shape)
        if class_weights is not None:
            weight = weight * jnp.sum(labels * class_weights, axis=-1)
        return weighted_mean(losses, weight)

    return loss_fn


def binary_cross_entropy(outputs: Float[Array, "b c"], batch: Batch) -> Mean:
    """Sigmoid cross-entropy, the mean over the classes of `-y log s(z) - (1 - y) log s(-z)`.

    Args:
      outputs: logits.
      batch: `labels` float32 [b c], 1 where a class applies; `weight` float32 [b].
    """
    import optax

    losses = optax.sigmoid_binary_cross_entropy(outputs.astype(jnp.float32), batch["labels"])
    return _mean_of_rows(losses, batch)


def make_binary_cross_entropy(
    class_weights: Float[Array, " c"] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> LossFn:
    """`binary_cross_entropy` with options.

    The mean over the classes of `-w_c y (1 - p)^gamma log p - (1 - y) p^gamma log (1 - p)`, with
    p = s(z) and y moved towards 1/2 by label smoothing: the weight is of where a class applies.

    Args:
      class_weights: w, [c]; None is 1.
      label_smoothing: from 0 to below 1.
      focal_gamma: gamma, from 0.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection.
    """
    if class_weights is None and not label_smoothing and not focal_gamma:
        return binary_cross_entropy

    def loss_fn(outputs: Float[Array, "b c"], batch: Batch) -> Mean:
        logits = outputs.astype(jnp.float32)
        labels = (1.0 - label_smoothing) * batch["labels"] + label_smoothing / 2
        yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        if focal_gamma:  # exp(gamma log q) is q^gamma, with a gradient at q = 0 too
            yes, no = yes * jnp.exp(focal_gamma * no), no * jnp.exp(focal_gamma * yes)
        factors = 1.0 if class_weights is None else class_weights
        losses = -(labels * factors * yes + (1.0 - labels) * no)
        return _mean_of_rows(losses, batch)

    return loss_fn


def squared_error(outputs: Float[Array, "b k"], batch: Batch) -> Mean:
    """Squared error, the mean over the k targets of `(y - label)^2`.

    Args:
      outputs: predictions.
      batch: `labels` float32 [b k], or [b] for one target; `weight` float32 [b].
    """
    errors = outputs.astype(jnp.float32) - batch["labels"].reshape(outputs.shape)
    return _mean_of_rows(errors**2, batch)


def span_cross_entropy(outputs: Float[Array, "b t 2"], batch: Batch) -> Mean:
    """Mean of the cross-entropies over tokens of where a span starts and where it ends.

    Args:
      outputs: logits of start and end; padding and other examples count as impossible.
      batch: `labels` int32 [b 2], positions of first and last token; `attention_mask` int32 [b t];
        `weight` float32 [b]. Of packed rows with s examples `labels` [b s 2], positions in the row,
        `segment_ids` int32 [b t], `first_tokens` and `weight` [b s].

    Source: Devlin et al. 2019, BERT, section 4.2.
    """
    import optax

    ends = jnp.swapaxes(outputs.astype(jnp.float32), 1, 2)  # [b t 2] -> [b 2 t]
    if "segment_ids" in batch:
        ends, own = ends[:, None], segment_mask(batch)[:, :, None]  # [b 1 2 t], [b s 1 t]
    else:
        own = batch["attention_mask"][:, None] > 0  # [b 1 t]
    ends = jnp.where(own, ends, jnp.finfo(jnp.float32).min)
    losses = optax.softmax_cross_entropy_with_integer_labels(ends, batch["labels"])
    return _mean_of_rows(losses, batch)


def _mean_of_rows(losses: Float[Array, "... k"], batch: Batch) -> Mean:
    """The mean of the k losses of each row, weighed by its weight."""
    return weighted_mean(losses.mean(axis=-1), weights(batch, losses.shape[:-1]))
