"""What changes during training, and nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxtune.core.types import Params, PRNGKey


class TrainState(NamedTuple):
    """All that a step changes. Frozen parameters are not here: they are an argument of the step.

    Attributes:
      step: number of optimizer steps taken.
      params: the trainable parameters; None where frozen.
      opt_state: moments of the trainable parameters alone.
      key: the root key. It is never advanced: step n draws from `fold_in(key, n)`.
      average: a running average of `params`, float32; None where none is kept.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: PRNGKey
    average: Params = None


def init_state(params: Params, tx: optax.GradientTransformation, key: PRNGKey) -> TrainState:
    """A state at step 0.

    Args:
      params: the trainable parameters, None where frozen.
      tx: the optimizer that the step will use.
      key: the root key.

    Parameters and key are copied, so that a step that donates the state leaves the caller's
    arrays alone.
    """
    params = jax.tree.map(jnp.copy, params)
    data = jnp.copy(jax.random.key_data(key))
    key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), key)
