"""What a student learns from its teacher: its outputs, softened, and its hidden states.

All are sums over a batch, weighed as the task's own loss is, so that they add to it exactly over
microbatches, packed rows and devices.

Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean, segment_mask, weighted_mean, weights
from jaxtune.models.observed import Observed

TEACHER_OUTPUTS = "teacher_outputs"
"""The field of a batch that holds the teacher's outputs, of the student's shape."""

TEACHER_STATES = "teacher_states"
"""Its hidden states that are compared, float32 [b t k d]."""

STATE_SHARES = "state_shares"
"""What each token counts in the comparison, float32 [b t]: the tokens of an example share the
weight that it has in the task's loss."""


def make_class_kl(temperature: float) -> LossFn:
    """`T^2 KL(p || q)` with p = softmax(z_teacher / T), q = softmax(z / T).

    T^2 keeps the size of its gradient, whatever T is, beside that of the labels.

    Args:
      temperature: T.

    Returns:
      A loss of logits [... c] and a batch with `teacher_outputs` [... c] and `weight` [...].
    """

    def loss_fn(outputs: Float[Array, "... c"], batch: Batch) -> Mean:
        losses = _kl(_soften(batch[TEACHER_OUTPUTS], temperature), _soften(outputs, temperature))
        return weighted_mean(temperature**2 * losses, weights(batch, losses.shape))

    return loss_fn


def make_binary_kl(temperature: float) -> LossFn:
    """`T^2 KL` of each class by itself, applying or not, the mean over the classes.

    Args:
      temperature: T.

    Returns:
      A loss of logits [... c] and a batch with `teacher_outputs` [... c] and `weight` [...].
    """

    def loss_fn(outputs: Float[Array, "... c"], batch: Batch) -> Mean:
        p, q = (
            jnp.stack([jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)], axis=-1)  # [... c 2]
            for z in (
                x.astype(jnp.float32) / temperature for x in (batch[TEACHER_OUTPUTS], outputs)
            )
        )
        losses = _kl(p, q).mean(axis=-1)
        return weighted_mean(temperature**2 * losses, weights(batch, losses.shape))

    return loss_fn


def make_output_error(temperature: float) -> LossFn:
    """The squared error of numbers, the mean over the targets; there is no temperature in it.

    Args:
      temperature: not read.

    Returns:
      A loss of outputs [... k] and a batch with `teacher_outputs` [... k] and `weight` [...].
    """
    del temperature

    def loss_fn(outputs: Float[Array, "... k"], batch: Batch) -> Mean:
        errors = outputs.astype(jnp.float32) - batch[TEACHER_OUTPUTS].astype(jnp.float32)
        losses = jnp.mean(errors**2, axis=-1)
        return weighted_mean(losses, weights(batch, losses.shape))

    return loss_fn


def make_span_kl(temperature: float) -> LossFn:
    """`T^2 KL` over the tokens of an example of where a span starts, and where it ends: their mean.

    Args:
      temperature: T.

    Returns:
      A loss of logits [b t 2] and a batch with `teacher_outputs` [b t 2]; else as
      `losses.span_cross_entropy` reads it.
    """

    def loss_fn(outputs: Float[Array, "b t 2"], batch: Batch) -> Mean:
        if "segment_ids" in batch:
            own = segment_mask(batch)[..., None, :]  # [b s 1 t]
        else:
            own = batch["attention_mask"][:, None] > 0  # [b 1 t]

        def soften(z: Float[Array, "b t 2"]) -> Float[Array, "... 2 t"]:
            ends = jnp.swapaxes(z.astype(jnp.float32), 1, 2) / temperature  # [b 2 t]
            ends = ends[:, None] if own.ndim == 4 else ends
            return jax.nn.log_softmax(jnp.where(own, ends, jnp.finfo(jnp.float32).min))

        losses = _kl(soften(batch[TEACHER_OUTPUTS]), soften(outputs)).mean(axis=-1)
        return weighted_mean(temperature**2 * losses, weights(batch, losses.shape))

    return loss_fn


def make_distillation_loss(
    hard: LossFn, soft: LossFn, alpha: float, hidden_weight: float = 0.0
) -> LossFn:
    """`(1 - alpha) hard + alpha soft + hidden_weight states`.

    Args:
      hard: the task's loss, of the labels.
      soft: one of those above, of the same weights.
      alpha: the share of the teacher's outputs, 0 to 1.
      hidden_weight: of the mean squared error of hidden states; not 0 where the outputs are
        `Observed` alone.
    """

    def loss_fn(outputs: Any, batch: Batch) -> Mean:
        states: tuple[Array, ...] = ()
        if isinstance(outputs, Observed):
            outputs, states = outputs
        labelled = hard(outputs, batch)
        total = (1.0 - alpha) * labelled.total
        if alpha:
            total = total + alpha * soft(outputs, batch).total
        if hidden_weight:
            total = total + hidden_weight * state_error(states, batch)
        return Mean(total, labelled.weight)

    return loss_fn


def state_error(states: tuple[Float[Array, "b t d"], ...], batch: Batch) -> Float[Array, ""]:
    """Sum over the examples of weight times the mean squared error of their states.

    The mean is over the tokens of an example, its features and the k layers that are compared.

    Args:
      states: of the student, k of them.
      batch: with `teacher_states` [b t k d] and `state_shares` [b t].

    Source: Jiao et al. 2020, TinyBERT, equation 8, without its matrix.
    """
    shares, wanted = batch[STATE_SHARES], batch[TEACHER_STATES]
    errors = [
        jnp.mean((x.astype(jnp.float32) - wanted[:, :, i].astype(jnp.float32)) ** 2, axis=-1)
        for i, x in enumerate(states)
    ]
    return sum((jnp.sum(shares * error) for error in errors), jnp.zeros(())) / len(errors)


def _soften(logits: Float[Array, "... c"], temperature: float) -> Float[Array, "... c"]:
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)


def _kl(p: Float[Array, "... c"], q: Float[Array, "... c"]) -> Float[Array, "..."]:
    """Of distributions that are given by their logarithms."""
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)
