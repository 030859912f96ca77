"""Multi-head attention, and which tokens see which.

Softmax is float32 at least, whatever the products are computed in.

Source: Vaswani et al. 2017, Attention Is All You Need.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dense, Dropout, Init, NoiseIds, dense
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.products import (
    activation_dtype,
    attention_kernel,
    attention_scores,
    attention_values,
    fused_attention,
)
from jaxtune.parallel.collectives import split_features

Bias = Float[Array, "b 1 q t"]
"""0 where a key may be attended to, the lowest finite float32 where it may not; of [b 1 1 t] where
what is seen does not depend on who looks."""


def attention_bias(batch: Batch, *, causal: bool = False, window: int | None = None) -> Bias:
    """Which tokens of a batch see which.

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


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention: `softmax(q k^T / sqrt(d_h) + bias) v`.

    Attributes:
      projections: names of the matrices for query, key and value, or of the one that gives all
        three, one after the other.
      output: name of a last matrix; None where it belongs to another module.
      use_bias: whether the matrices have one.
      output_init: of the last matrix; None for that of the others.

    Source: Vaswani et al. 2017, Attention Is All You Need, equation 1.
    """

    num_heads: int
    dropout_rate: float
    kernel_init: Init
    dtype: Any
    projections: tuple[str, ...] = ("query", "key", "value")
    output: str | None = None
    use_bias: bool = True
    output_init: Init | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        bias: Bias,
        noise_ids: NoiseIds,
        places: Places = None,
        rotate: Callable[[Float[Array, "b t h k"]], Float[Array, "b t h k"]] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attends over axis t.

        Args:
          x: hidden states.
          bias: added to the scores before the softmax.
          noise_ids: of the tokens.
          places: of the tokens whose output is wanted; None for all, q = t.
          rotate: of queries and keys, by their positions.
        """
        d, asking, places_left = x.shape[-1], x, places
        asking_ids = pick_noise_ids(noise_ids, places)
        if len(self.projections) == 1:
            parts = split_features(self._dense(3 * d, self.projections[0])(x, noise_ids), 3)
        else:
            if places is not None and rotate is None:  # no query is projected in vain
                asking, places_left = pick(x, places), None
            ids = asking_ids if places_left is None else noise_ids
            sources = ((asking, ids), (x, noise_ids), (x, noise_ids))
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
        if places is not None and bias.shape[2] != 1:
            bias = jnp.take_along_axis(bias, places[:, None, :, None], axis=2)
        attended = self.attend(query, key, value, bias, asking_ids, noise_ids)
        if self.output is None:
            return attended
        return self._dense(d, self.output, self.output_init)(attended, asking_ids)

    def attend(
        self,
        query: Float[Array, "b q h k"],
        key: Float[Array, "b s h k"],
        value: Float[Array, "b s h k"],
        bias: Float[Array, "b 1 q s"],
        asking: NoiseIds,
        noise_ids: NoiseIds,
    ) -> Float[Array, "b q d"]:
        """Attends over axis s; a method of its own, so that a strategy can add keys and values.

        Args:
          query: of the tokens whose output is wanted.
          key: of those that may be attended to.
          value: likewise.
          bias: added to the scores before the softmax.
          asking: noise ids of the queries' tokens.
          noise_ids: of the keys' tokens.
        """
        b, q, h, k = query.shape
        # JAX gives no gradient of an odd number of queries, and one query is quick in any case; and
        # what is exported for any number may be given an odd one.
        if isinstance(q, int) and q % 2 == 0 and self.kernel(k, noise_ids is not None) == "cudnn":
            attended = fused_attention(query, key, value, bias, self.dtype)
            return attended.reshape(b, q, h * k)
        scores = attention_scores(query / k**0.5, key, self.dtype)  # [b h q s]
        scores = scores.astype(jnp.promote_types(self.dtype, jnp.float32)) + bias
        probs = jax.nn.softmax(scores, axis=-1).astype(activation_dtype(self.dtype))
        probs = Dropout(self.dropout_rate)(probs, noise_ids, asking)
        return attention_values(probs, value, self.dtype).reshape(b, q, h * k)

    def kernel(self, head_size: int, train: bool) -> str:
        """See `products.attention_kernel`."""
        rate = self.dropout_rate if train else 0.0
        return attention_kernel(self.dtype, head_size, rate)

    def _dense(self, features: int, name: str, init: Init | None = None) -> Dense:
        init = self.kernel_init if init is None else init
        return dense(features, init, self.dtype, name, self.use_bias)
