"""The next token from its logits: the likeliest, or one drawn from the likely ones.

Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1 (top-p);
Fan et al. 2018, Hierarchical Neural Story Generation, section 5.4 (top-k).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxtune.core.errors import UserError


class Sampling(NamedTuple):
    """How a token is chosen; numbers, or arrays of one.

    Attributes:
      temperature: the logits are divided by it; 0 takes the likeliest token.
      top_p: the fewest tokens are left, the likeliest first, whose probabilities add up to at least
        so much; 1 leaves all.
      top_k: so many of the likeliest are left, before that; None leaves all.
    """

    temperature: Any = 0.0
    top_p: Any = 1.0
    top_k: Any = None


Draw = Callable[[Float[Array, "b v"], Key[Array, " b"], Sampling], Int[Array, " b"]]
"""(logits, a key for each row, how) -> a token for each row."""


def check_sampling(sampling: Sampling) -> None:
    """Refuses what cannot be followed.

    Raises:
      UserError: a value out of its range, or one that would do nothing.
    """
    temperature, top_p, top_k = sampling
    if not 0 <= temperature < math.inf:
        raise UserError(
            f"temperature is {temperature}: expected 0, which takes the likeliest token, or more."
        )
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}: expected more than 0, and at most 1 for all tokens.")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}: expected at least 1; leave it out for all tokens.")
    if temperature == 0 and (top_p < 1 or top_k is not None):
        name, value = ("top_p", top_p) if top_p < 1 else ("top_k", top_k)
        raise UserError(
            f"{name} is {value}, but temperature is 0, which takes the likeliest token and draws"
            f" none. Set temperature, such as 1.0, or leave {name} out."
        )


def choose_draw(sampling: Sampling) -> tuple[Draw, Sampling]:
    """What chooses a token, and the numbers that it takes, as arrays.

    Args:
      sampling: checked.
    """
    temperature, top_p, top_k = sampling
    most = jnp.iinfo(jnp.int32).max
    numbers = Sampling(
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(top_p, jnp.float32),
        jnp.asarray(most if top_k is None else min(top_k, most), jnp.int32),
    )
    if temperature == 0:
        return take_likeliest, numbers
    return (draw_any if top_p == 1 and top_k is None else draw_likely), numbers


def take_likeliest(
    logits: Float[Array, "b v"], keys: Key[Array, " b"], sampling: Sampling
) -> Int[Array, " b"]:
    """The token of the largest logit; of equals the first."""
    del keys, sampling
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def draw_any(
    logits: Float[Array, "b v"], keys: Key[Array, " b"], sampling: Sampling
) -> Int[Array, " b"]:
    """One of all tokens, by its probability."""
    scaled = _divided(logits, sampling.temperature)
    return jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)


def draw_likely(
    logits: Float[Array, "b v"], keys: Key[Array, " b"], sampling: Sampling
) -> Int[Array, " b"]:
    """One of the tokens that `top_k` and `top_p` leave."""
    left = likely(_divided(logits, sampling.temperature), sampling)
    return jax.vmap(jax.random.categorical)(keys, left).astype(jnp.int32)


def likely(logits: Float[Array, "b v"], sampling: Sampling) -> Float[Array, "b v"]:
    """The logits, -inf of the tokens that `top_k` and `top_p` do not leave.

    The token with which the sum of probabilities reaches `top_p` is left, and so are those that are
    as likely as the last one left.

    Args:
      logits: divided by the temperature.
      sampling: with a number for `top_k`.
    """
    ordered = jnp.sort(logits, axis=-1, descending=True)
    is_left = jnp.arange(logits.shape[-1]) < sampling.top_k
    probs = jax.nn.softmax(ordered, where=is_left, axis=-1)
    before = jnp.pad(jnp.cumsum(probs, axis=-1)[:, :-1], ((0, 0), (1, 0)))
    is_left &= (before < sampling.top_p) | (sampling.top_p >= 1)
    least = jnp.min(ordered, axis=-1, keepdims=True, where=is_left, initial=jnp.inf)
    return jnp.where(logits >= least, logits, -jnp.inf)


def _divided(logits: Float[Array, "b v"], temperature: Array) -> Float[Array, "b v"]:
    """Logits over the temperature, the largest of which is 0 whatever that is."""
    above = logits - jnp.max(logits, axis=-1, keepdims=True)
    return above / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
