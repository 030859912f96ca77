"""What a causal model writes after prompts: one loop over tokens, of bounded shapes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtune.core.types import ApplyFn, Batch, Params, PRNGKey
from jaxtune.models.cached import Cache, decode, prefill
from jaxtune.models.sampling import Draw, Sampling


class Rule(NamedTuple):
    """How tokens are chosen.

    Attributes:
      key: of all; the token of a row at a position is drawn by `fold_in` of the row's number, and
        of the position.
      sampling: numbers as `choose_draw` gives them.
      ends: tokens that end a text, [e].
    """

    key: PRNGKey
    sampling: Sampling
    ends: Int[Array, " e"]


class State(NamedTuple):
    """After some steps.

    Attributes:
      step: tokens drawn so far, of each row.
      token: the newest of each row, [b].
      goes_on: which rows have not ended, [b].
      is_finite: whether all logits were, of each row, [b].
      counts: tokens of each row's text, [b].
      tokens: of the texts, [b s]; those of row i are the first `counts[i]`.
      cache: without the newest token.
    """

    step: Int[Array, ""]
    token: Int[Array, " b"]
    goes_on: Bool[Array, " b"]
    is_finite: Bool[Array, " b"]
    counts: Int[Array, " b"]
    tokens: Int[Array, "b s"]
    cache: Cache


class Written(NamedTuple):
    """Texts, without the tokens that end them; the fields are those of `State`."""

    tokens: Int[Array, "b s"]
    counts: Int[Array, " b"]
    is_finite: Bool[Array, " b"]


def write(
    apply_fn: ApplyFn, draw: Draw, slots: int, params: Params, batch: Batch, rule: Rule
) -> Written:
    """Goes on with each prompt until its text ends, or is as long as it may be.

    Args:
      apply_fn: a causal language model; see `prefill`.
      draw: from `choose_draw`.
      slots: s, tokens that a row with its text has room for.
      params: of the model.
      batch: prompts, `input_ids` and `attention_mask` [b t], padded on the right; `limits` [b], the
        most tokens of each row's text, with which the row fits the slots; and `rows` [b], the rows'
        numbers.
      rule: how tokens are chosen.
    """
    lengths, limits = jnp.sum(batch["attention_mask"], axis=-1), batch["limits"]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(rule.key, batch["rows"])

    def add(state: State, logits: Float[Array, "b v"]) -> State:
        own = jax.vmap(jax.random.fold_in)(keys, lengths + state.step)
        token = draw(logits, own, rule.sampling)
        asked = state.goes_on & (state.step < limits)
        goes_on = asked & ~jnp.isin(token, rule.ends)
        return state._replace(
            step=state.step + 1,
            token=token,
            goes_on=goes_on,
            is_finite=state.is_finite & (~asked | jnp.isfinite(logits).all(axis=-1)),
            counts=state.counts + goes_on,
            tokens=state.tokens.at[:, state.step].set(jnp.where(goes_on, token, 0)),
        )

    def go_on(state: State) -> State:
        # A row that has ended is computed with the others; no other row reads it.
        positions = jnp.minimum(lengths + state.step - 1, slots - 1)
        logits, cache = decode(apply_fn, params, state.token, positions, state.cache)
        return add(state._replace(cache=cache), logits)

    def is_asked(state: State) -> Bool[Array, ""]:
        return jnp.any(state.goes_on & (state.step < limits))

    logits, cache = prefill(apply_fn, params, batch, slots)
    state = jax.lax.while_loop(is_asked, go_on, add(_start(lengths, slots, cache), logits))
    return Written(state.tokens, state.counts, state.is_finite)


def _start(lengths: Int[Array, " b"], slots: int, cache: Cache) -> State:
    """No token is drawn yet."""
    zeros, ones = jnp.zeros(lengths.shape, jnp.int32), jnp.ones(lengths.shape, bool)
    tokens = jnp.zeros((*lengths.shape, slots), jnp.int32)
    return State(jnp.zeros((), jnp.int32), zeros, ones, ones, zeros, tokens, cache)
