"""The exponential moving average of what is trained."""

import math

import jax
import jax.numpy as jnp
import optax

from jaxtune.core.types import Batch, Params
from jaxtune.training.state import TrainState
from jaxtune.training.step import StepInfo, TrainStep


def begin_average(state: TrainState) -> TrainState:
    """The state with an average that is its parameters, in float32 of its own."""
    average = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), state.params)
    return state._replace(average=average)


def averaging(step: TrainStep, decay: float) -> TrainStep:
    """The step, after which the average a of what is trained has moved towards it.

    With the decay d and the parameters p_t after step t,

        a_t = a_{t-1} + (1 - d) / (1 - d^t) (p_t - a_{t-1}),

    which is `sum_k d^(t-k) p_k / sum_k d^(t-k)` over the steps k = 1 ... t: the bias-corrected
    average that `optax.ema` keeps of gradients, without its beginning at 0. So the average of a
    leaf that is trained from a later step on begins with its value until then, for all those steps.

    Args:
      step: as `make_train_step` makes it; its state has an average, as `begin_average` gives it.
      decay: d, between 0 and 1.

    Source: Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging; for the
    correction, Kingma and Ba 2015, Adam, section 3.
    """

    def averaged(state: TrainState, frozen: Params, batch: Batch) -> tuple[TrainState, StepInfo]:
        new, info = step(state, frozen, batch)
        whole = -jnp.expm1(new.step * math.log(decay))  # 1 - d^t, of which d near 1 takes no digits
        params = optax.tree.cast(new.params, jnp.float32)
        average = optax.incremental_update(params, state.average, (1.0 - decay) / whole)
        return new._replace(average=average), info

    return averaged
