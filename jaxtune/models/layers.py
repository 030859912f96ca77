"""Transformer parts whose mathematics several families share.

Parameter names are those of the Hugging Face Flax models. Parameters are float32; `dtype` is what
the products are computed in. Softmax and the statistics of LayerNorm are float32 at least.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Activations by the name that `hidden_act` gives them."""


def attention_bias(mask: Int[Array, "b t"]) -> Float[Array, "b 1 1 t"]:
    """0 where a key may be attended to, the lowest finite float32 where it may not."""
    return jnp.where(mask[:, None, None, :] > 0, 0.0, jnp.finfo(jnp.float32).min)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention: `softmax(q k^T / sqrt(d_h) + bias) v`.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1.
    """

    num_heads: int
    dropout_rate: float
    initializer_range: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], bias: Float[Array, "b 1 1 t"], train: bool
    ) -> Float[Array, "b t d"]:
        """Attends over axis t. `bias` is added to the scores before the softmax."""
        b, t, d = x.shape
        head_dim = d // self.num_heads

        def project(name: str) -> Float[Array, "b t h k"]:
            y = dense(d, self.initializer_range, self.dtype, name=name)(x)
            return y.reshape(b, t, self.num_heads, head_dim)  # [b t d] -> [b t h k]

        return self.attend(project("query"), project("key"), project("value"), bias, train)

    def attend(
        self,
        query: Float[Array, "b t h k"],
        key: Float[Array, "b s h k"],
        value: Float[Array, "b s h k"],
        bias: Float[Array, "b 1 1 s"],
        train: bool,
    ) -> Float[Array, "b t d"]:
        """Attends over axis s; a method of its own, so that a strategy can add keys and values."""
        b, t, h, k = query.shape
        scores = jnp.einsum("bqhk,bshk->bhqs", query / k**0.5, key)  # [b h t s]
        scores = scores.astype(jnp.promote_types(self.dtype, jnp.float32)) + bias
        probs = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        probs = nn.Dropout(self.dropout_rate)(probs, deterministic=not train)
        return jnp.einsum("bhqs,bshk->bqhk", probs, value).reshape(b, t, h * k)


class DenseResidualNorm(nn.Module):
    """`LayerNorm(residual + dropout(dense(x)))`, the end of both halves of a post-norm layer."""

    features: int
    dropout_rate: float
    layer_norm_eps: float
    initializer_range: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t f"], residual: Float[Array, "b t d"], train: bool
    ) -> Float[Array, "b t d"]:
        """Projects axis f to d, adds the residual and normalises over d."""
        y = dense(self.features, self.initializer_range, self.dtype, name="dense")(x)
        y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
        return layer_norm(self.layer_norm_eps, self.dtype)(residual + y)


def dense(features: int, initializer_range: float, dtype: Any, name: str | None) -> nn.Dense:
    """`x W + b` with weights drawn from N(0, initializer_range^2)."""
    init = nn.initializers.normal(initializer_range)
    return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)


def layer_norm(eps: float, dtype: Any) -> nn.LayerNorm:
    """LayerNorm over the last axis; mean and variance in float32, the variance in two passes."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name="LayerNorm")
