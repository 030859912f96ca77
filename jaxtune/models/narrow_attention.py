"""Attention with all scores at once, in bfloat16, with its gradient written out.

Derived from one operation after the other, the gradient keeps the probabilities in float32, those
left by dropout, and the mask. Here the probabilities wait for it alone, in bfloat16.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.dropout import Drop


class _Saved(NamedTuple):
    query: Array  # [b h q k]
    key: Array  # [b h s k]
    value: Array
    bias: Array
    drop: Any
    probs: Array  # [b h q s]
    out: Array  # [b h q k]


@jax.custom_vjp
def narrow_attention(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    bias: Float[Array, "#b #h #q s"],
    drop: Drop | None,
) -> Float[Array, "b q h k"]:
    """`drop(softmax(q k^T / sqrt(k) + bias)) v`, in the dtype of the values.

    Args:
      query: q of them a row.
      key: s of them a row.
      value: likewise.
      bias: float32; has a gradient.
      drop: of the probabilities; None for none.

    Source: Dao et al. 2022, FlashAttention, appendix B.4, for the gradient of the softmax.
    """
    return _forward(query, key, value, bias, drop)[0]


def _forward(
    query: Array, key: Array, value: Array, bias: Array, drop: Drop | None
) -> tuple[Array, _Saved]:
    query, key, value = _turned(query, key, value)
    scores = jnp.einsum("bhqk,bhsk->bhqs", query, key).astype(jnp.float32)
    probs = jax.nn.softmax(scores * query.shape[-1] ** -0.5 + bias, axis=-1).astype(value.dtype)
    probs = jax.lax.optimization_barrier(probs)  # or a GPU computes them anew for each reader
    out = jnp.einsum("bhqs,bhsk->bhqk", probs if drop is None else drop(probs), value)
    return out.swapaxes(1, 2), _Saved(query, key, value, bias, drop, probs, out)


def _turned(*parts: Array) -> tuple[Array, ...]:
    """[b t h k] -> [b h t k] as products take them, by one kernel with what gives these parts."""
    return jax.lax.optimization_barrier(tuple(part.swapaxes(1, 2) for part in parts))


def _backward(saved: _Saved, g: Array) -> tuple[Any, ...]:
    query, key, value, bias, drop, probs, out = saved
    (g,) = _turned(g.astype(value.dtype))
    to_probs = jnp.einsum("bhqk,bhsk->bhqs", g, value)
    along = jnp.einsum("bhqk,bhqk->bhq", out, g, preferred_element_type=jnp.float32)[..., None]
    kept = probs
    if drop is not None:
        again = jax.lax.optimization_barrier(drop)
        kept, to_probs = again(kept), again(to_probs)
    to_logits = probs.astype(jnp.float32) * (to_probs.astype(jnp.float32) - along)
    to_scores = (to_logits * query.shape[-1] ** -0.5).astype(query.dtype)
    by_parts = (
        jnp.einsum("bhqs,bhsk->bhqk", to_scores, key),
        jnp.einsum("bhqs,bhqk->bhsk", to_scores, query),
        jnp.einsum("bhqs,bhqk->bhsk", kept, g),
    )
    by_parts = jax.lax.optimization_barrier(by_parts)
    back = (part.swapaxes(1, 2) for part in by_parts)  # [b h t k] -> [b t h k]
    return (*back, _summed_to(to_logits, bias.shape), None)


def _summed_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which what has this shape was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if n != m)
    return x.sum(axis=axes, keepdims=True)


narrow_attention.defvjp(_forward, _backward)
