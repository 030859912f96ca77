"""Transformer parts whose mathematics several families share.

Parameter names are those of the Hugging Face Flax models, or of the torch models where there was no
Flax one. Parameters are float32; `dtype` is what the products are computed in, and what stands
between them has `products.activation_dtype(dtype)`. Softmax and the statistics of LayerNorm are
float32 at least.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped, UInt32

from jaxtune.core import dropout
from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.products import (
    activation_dtype,
    attention_kernel,
    attention_scores,
    attention_values,
    fused_attention,
    product,
)
from jaxtune.parallel.collectives import split_features

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    # jax.nn.gelu computes the exact one by erfc, which takes three times as long on a CPU.
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x * jnp.asarray(2**-0.5, x.dtype))),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
"""Activations by the name that `hidden_act` gives them."""

Spread = float | jax.nn.initializers.Initializer
"""What weights are drawn from: N(0, s^2) for a number s, or as the initializer draws."""


def positions_of(batch: Batch) -> Int[Array, "b t"]:
    """The batch's `position_ids`; counted from 0 in each row where it has none."""
    positions = batch.get("position_ids")
    if positions is None:
        shape = batch["input_ids"].shape
        positions = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    return positions


def images_of(batch: Batch, channels: int) -> Float[Array, "b h w c"]:
    """The batch's `pixel_values`.

    Raises:
      UserError: images of another shape than [b h w channels].
    """
    images = batch["pixel_values"]
    if images.ndim != 4 or images.shape[3] != channels:
        raise UserError(
            f"pixel_values has shape {images.shape}, expected [batch, height, width, {channels}]."
        )
    return images


def attention_bias(
    batch: Batch, *, causal: bool = False, window: int | None = None
) -> Float[Array, "b 1 q t"]:
    """0 where a key may be attended to, the lowest finite float32 where it may not.

    Args:
      batch: with `attention_mask` [b t], 0 at padding; or, of packed rows, `segment_ids` [b t].
      causal: a token sees itself and those before it.
      window: a token sees those at most so many positions away; None for all.

    Returns:
      [b 1 1 t], or [b 1 t t] where what is seen depends on who looks.
    """
    if "segment_ids" in batch:
        segments = batch["segment_ids"]
        allowed = segments[:, None, :, None] == segments[:, None, None, :]  # [b 1 q t]
    else:
        allowed = batch["attention_mask"][:, None, None, :] > 0  # [b 1 1 t]
    if causal or window is not None:
        positions = positions_of(batch)
        ahead = positions[:, None, None, :] - positions[:, None, :, None]  # [b 1 q t]
        if causal:
            allowed = allowed & (ahead <= 0)
        if window is not None:
            allowed = allowed & (jnp.abs(ahead) <= window)
    return jnp.where(allowed, 0.0, jnp.finfo(jnp.float32).min)


class Dropout(nn.Module):
    """Dropout by `noise`, which knows the tokens."""

    rate: float

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "..."],
        tokens: UInt32[Array, "..."] | None,
        asking: UInt32[Array, "b q"] | None = None,
    ) -> Float[Array, "..."]:
        """[... d] -> [... d], or [b h q s] -> [b h q s].

        Args:
          inputs: features of tokens; of attention, probabilities.
          tokens: names of all axes but the last; of attention, [b s]. None drops nothing.
          asking: of attention alone, names of the queries' tokens.
        """
        if tokens is None or not self.rate:
            return inputs
        key = self.make_rng("dropout")
        if asking is None:
            return dropout.drop_features(inputs, self.rate, key, tokens)
        return dropout.drop_probabilities(inputs, self.rate, key, asking, tokens)


class Dense(nn.Dense):
    """`x W + b` by `products.product`."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... i"], tokens: UInt32[Array, "..."] | None = None
    ) -> Float[Array, "... o"]:
        """[... i] -> [... o].

        Args:
          inputs: features of tokens.
          tokens: their names, for strategies that drop some of the features; not read here.
        """
        del tokens
        shape = (inputs.shape[-1], self.features)
        y = product(inputs, self.param("kernel", self.kernel_init, shape), self.dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,)).astype(y.dtype)
        return y


def pick(x: Shaped[Array, "b t ..."], places: Int[Array, "b n"] | None) -> Shaped[Array, "b n ..."]:
    """The tokens at some places of each row; all of them for None."""
    if places is None:
        return x
    return jnp.take_along_axis(x, places.reshape(*places.shape, *(1,) * (x.ndim - 2)), axis=1)


def pick_names(
    tokens: UInt32[Array, "b t"] | None, places: Int[Array, "b n"] | None
) -> UInt32[Array, "b n"] | None:
    """As `pick`, of the names of tokens; None where there are none."""
    return None if tokens is None else pick(tokens, places)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention: `softmax(q k^T / sqrt(d_h) + bias) v`.

    Attributes:
      projections: names of the matrices for query, key and value, or of the one that gives all
        three, one after the other.
      output: name of a last matrix; None where it belongs to another module.
      use_bias: whether the matrices have one.
      output_range: initializer_range of the last matrix; None for that of the others.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1.
    """

    num_heads: int
    dropout_rate: float
    initializer_range: Spread
    dtype: Any
    projections: tuple[str, ...] = ("query", "key", "value")
    output: str | None = None
    use_bias: bool = True
    output_range: Spread | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Float[Array, "b 1 q t"],
        tokens: UInt32[Array, "b t"] | None,
        rotate: Callable[[Float[Array, "b t h k"]], Float[Array, "b t h k"]] | None = None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attends over axis t.

        Args:
          x: hidden states.
          bias: added to the scores before the softmax.
          tokens: names of the tokens, by which dropout knows them; None for no dropout.
          rotate: of queries and keys, by their positions.
          places: of the tokens whose output is wanted; None for all, q = t.
        """
        d, asking, places_left = x.shape[-1], x, places
        asking_tokens = pick_names(tokens, places)
        if len(self.projections) == 1:
            parts = split_features(self._dense(3 * d, self.projections[0])(x, tokens), 3)
        else:
            if places is not None and rotate is None:  # no query is projected in vain
                asking, places_left = pick(x, places), None
            names = asking_tokens if places_left is None else tokens
            sources = ((asking, names), (x, tokens), (x, tokens))
            parts = [
                self._dense(d, name)(*source)
                for name, source in zip(self.projections, sources, strict=True)
            ]
        query, key, value = (
            part.reshape(*part.shape[:2], self.num_heads, -1)  # [b t d] -> [b t h k]
            for part in parts
        )
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        query = pick(query, places_left)
        if places is not None and bias.shape[2] > 1:
            bias = jnp.take_along_axis(bias, places[:, None, :, None], axis=2)
        attended = self.attend(query, key, value, bias, asking_tokens, tokens)
        if self.output is None:
            return attended
        return self._dense(d, self.output, self.output_range)(attended, asking_tokens)

    def attend(
        self,
        query: Float[Array, "b q h k"],
        key: Float[Array, "b s h k"],
        value: Float[Array, "b s h k"],
        bias: Float[Array, "b 1 q s"],
        asking: UInt32[Array, "b q"] | None,
        tokens: UInt32[Array, "b s"] | None,
    ) -> Float[Array, "b q d"]:
        """Attends over axis s; a method of its own, so that a strategy can add keys and values.

        Args:
          query: of the tokens whose output is wanted.
          key: of those that may be attended to.
          value: likewise.
          bias: added to the scores before the softmax.
          asking: names of the queries' tokens; None for no dropout.
          tokens: names of the keys' tokens; None for no dropout.
        """
        b, q, h, k = query.shape
        # JAX gives no gradient of an odd number of queries, and one query is quick in any case.
        if q % 2 == 0 and self.kernel(k, tokens is not None) == "cudnn":
            attended = fused_attention(query, key, value, bias, self.dtype)
            return attended.reshape(b, q, h * k)
        scores = attention_scores(query / k**0.5, key, self.dtype)  # [b h q s]
        scores = scores.astype(jnp.promote_types(self.dtype, jnp.float32)) + bias
        probs = jax.nn.softmax(scores, axis=-1).astype(activation_dtype(self.dtype))
        probs = Dropout(self.dropout_rate)(probs, tokens, asking)
        return attention_values(probs, value, self.dtype).reshape(b, q, h * k)

    def kernel(self, head_size: int, train: bool) -> str:
        """See `products.attention_kernel`."""
        rate = self.dropout_rate if train else 0.0
        return attention_kernel(self.dtype, head_size, rate)

    def _dense(self, features: int, name: str, spread: Spread | None = None) -> Dense:
        spread = self.initializer_range if spread is None else spread
        return dense(features, spread, self.dtype, name, self.use_bias)


class DenseResidualNorm(nn.Module):
    """`LayerNorm(residual + dropout(dense(x)))`, the end of both halves of a post-norm layer."""

    features: int
    dropout_rate: float
    layer_norm_eps: float
    initializer_range: float
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t f"],
        residual: Float[Array, "b t d"],
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t d"]:
        """Projects axis f to d, adds the residual and normalises over d."""
        y = dense(self.features, self.initializer_range, self.dtype, name="dense")(x, tokens)
        y = Dropout(self.dropout_rate)(y, tokens)
        return layer_norm(self.layer_norm_eps, self.dtype)(residual + y)


class Folder(nn.Module):
    """One module inside a folder of its own, where the files have one.

    Attributes:
      make: takes `name`, gives the module.
      inner: its name; the folder's is that of this module.
    """

    make: Callable[..., Any]
    inner: str

    @nn.compact
    def __call__(self, *args: Any) -> Array:
        """What the module gives."""
        return self.make(name=self.inner)(*args)


def dense(
    features: int, initializer_range: Spread, dtype: Any, name: str | None, use_bias: bool = True
) -> Dense:
    """`x W + b` with weights drawn from N(0, initializer_range^2)."""
    init = _initializer(initializer_range)
    return Dense(features, dtype=dtype, kernel_init=init, name=name, use_bias=use_bias)


def table(size: int, features: int, initializer_range: Spread, name: str | None) -> nn.Embed:
    """An embedding table drawn from N(0, initializer_range^2)."""
    init = _initializer(initializer_range)
    return nn.Embed(size, features, embedding_init=init, name=name)


def layer_norm(
    eps: float, dtype: Any, name: str | None = "LayerNorm", use_bias: bool = True
) -> nn.LayerNorm:
    """LayerNorm over the last axis; mean and variance in float32, the variance in two passes."""
    return nn.LayerNorm(
        epsilon=eps,
        dtype=activation_dtype(dtype),
        use_fast_variance=False,
        use_bias=use_bias,
        name=name,
    )


def _initializer(spread: Spread) -> jax.nn.initializers.Initializer:
    return spread if callable(spread) else nn.initializers.normal(spread)
