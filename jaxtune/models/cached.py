"""A causal model one token at a time, with the keys and values of earlier tokens kept.

The model is not changed: the calls of its attentions are intercepted, ahead of what a strategy adds
to them, so that it runs with added parameters too. A token's place in the cache is its position.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtune.core.types import ApplyFn, Batch, Params
from jaxtune.models.attention import SelfAttention
from jaxtune.models.model import Model
from jaxtune.models.places import places_of

Cache = dict[str, tuple[Float[Array, "b s h k"], Float[Array, "b s h k"]]]
"""Keys and values of each attention, by its path; of row i, place p holds the token at position p,
and what stands behind the newest token is not read."""


def prefill(
    apply_fn: ApplyFn, params: Params, batch: Batch, slots: int
) -> tuple[Float[Array, "b v"], Cache]:
    """Runs whole prompts.

    Args:
      apply_fn: a causal language model, with whatever a strategy does to it.
      params: its parameters.
      batch: `input_ids` and `attention_mask` [b t], padded on the right.
      slots: s, tokens that the cache has room for, at least t.

    Returns:
      (logits of the token after each prompt, the cache). Of the last layer, and of the vocabulary,
      nothing is computed for other tokens than the last but their keys and values.
    """
    b, t = batch["input_ids"].shape
    cache: Cache = {}

    def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, method = context.module, context.method_name
        if method == "places" and isinstance(module, Model):
            return places_of(batch, "last", b)
        if method == "attend" and isinstance(module, SelfAttention):
            _, key, value, *_ = args
            room = ((0, 0), (0, slots - t), (0, 0), (0, 0))
            cache[_name(module)] = (
                jnp.pad(key.astype(module.dtype), room),
                jnp.pad(value.astype(module.dtype), room),
            )
        return call(*args, **kwargs)

    with nn.intercept_methods(keep):
        logits = apply_fn(params, batch, key=None, train=False)
    return logits[:, 0], cache


def decode(
    apply_fn: ApplyFn,
    params: Params,
    tokens: Int[Array, " b"],
    positions: Int[Array, " b"],
    cache: Cache,
) -> tuple[Float[Array, "b v"], Cache]:
    """Runs one token of each row, which sees itself and those before it.

    Args:
      apply_fn: as of `prefill`.
      params: likewise.
      tokens: one for each row.
      positions: of these, below s.
      cache: with the tokens before them.

    Returns:
      (logits of the token after each, the cache with the tokens in it).
    """
    rows = jnp.arange(tokens.shape[0])
    grown: Cache = {}

    def extend(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "attend" or not isinstance(module, SelfAttention):
            return call(*args, **kwargs)
        query, key, value, _, *ids = args
        keys, values = cache[_name(module)]
        keys = keys.at[rows, positions].set(key[:, 0].astype(keys.dtype))
        values = values.at[rows, positions].set(value[:, 0].astype(values.dtype))
        grown[_name(module)] = keys, values
        seen = jnp.arange(keys.shape[1]) <= positions[:, None]  # [b s]
        bias = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)[:, None, None]
        return call(query, keys, values, bias, *ids, **kwargs)

    batch = {
        "input_ids": tokens[:, None],
        "attention_mask": jnp.ones_like(tokens)[:, None],
        "position_ids": positions[:, None],
    }
    with nn.intercept_methods(extend):
        logits = apply_fn(params, batch, key=None, train=False)
    return logits[:, 0], grown


def _name(module: nn.Module) -> str:
    return "/".join(module.path)
