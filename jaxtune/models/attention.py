"""Multi-head attention, and which tokens see which.

Softmax is float32 at least, whatever the products are computed in. Short rows are attended to all
at once; in long ones, whose scores would be too many to keep, a block at a time.

Source: Vaswani et al. 2017, Attention Is All You Need.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.device import Device
from jaxtune.core.types import Batch
from jaxtune.models.arithmetic import attention_of, device_of
from jaxtune.models.attention_path import band, choose_path
from jaxtune.models.banded import banded_attention
from jaxtune.models.blockwise import Blocks, blockwise_attention
from jaxtune.models.fused import fused_packed, fused_rows, is_packable, lowering_for
from jaxtune.models.fused_call import fits
from jaxtune.models.inputs import positions_of
from jaxtune.models.layers import Dense, Dropout, Init, NoiseIds, dense
from jaxtune.models.narrow_attention import narrow_attention
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.products import (
    activation_dtype,
    affine,
    attention_kernel,
    dense_attention,
    fused_attention,
)
from jaxtune.models.sight import Bias, Sight, near, sight_of
from jaxtune.parallel.collectives import split_features

Seen = Bias | Sight
"""Which tokens see which: spelled out for short rows, in few numbers for long ones."""


def attention_bias(
    batch: Batch, *, causal: bool = False, window: int | None = None, dtype: Any = jnp.float32
) -> Seen:
    """Which tokens of a batch see which.

    Args:
      batch: with `attention_mask` [b t], 0 at padding; or, of packed rows, `segment_ids` [b t],
        each segment's tokens one after the other.
      causal: a token sees itself and those before it.
      window: a token sees those at most so many positions away; None for all.
      dtype: of the attention's products; see `arithmetic.attention_of`.

    Returns:
      [b 1 1 t], or [b 1 t t] where what is seen depends on who looks; a `Sight` where rows are
      attended to in parts.
    """
    is_packed = "segment_ids" in batch
    shown = batch["segment_ids" if is_packed else "attention_mask"]
    if choose_path(*(shown.shape[1],) * 2, wanted=attention_of(dtype)) != "xla":
        return sight_of(batch, causal, window)
    if is_packed:
        allowed = shown[:, None, :, None] == shown[:, None, None, :]  # [b 1 q t]
    else:
        allowed = shown[:, None, None, :] > 0  # [b 1 1 t]
    if causal or window is not None:
        positions = positions_of(batch)
        ahead = positions[:, None, None, :] - positions[:, None, :, None]  # [b 1 q t]
        allowed = near(allowed, ahead, causal, window)
    return jnp.where(allowed, 0.0, jnp.finfo(jnp.float32).min)


def no_bias(b: int, t: int, dtype: Any = jnp.float32) -> Seen:
    """All of t tokens see each other; `dtype` as of `attention_bias`."""
    if choose_path(t, t, wanted=attention_of(dtype)) == "xla":
        return jnp.zeros((1, 1, 1, 1))
    groups = jnp.zeros((b, t), jnp.int32)
    return Sight(groups, groups)


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
        bias: Seen,
        noise_ids: NoiseIds,
        places: Places = None,
        rotate: Callable[[Float[Array, "b t h k"]], Float[Array, "b t h k"]] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attends over axis t.

        Args:
          x: hidden states.
          bias: added to the scores before the softmax, or what it follows from.
          noise_ids: of the tokens.
          places: of the tokens whose output is wanted; None for all, q = t.
          rotate: of queries and keys, by their positions.
        """
        d, asking, places_left = x.shape[-1], x, places
        asking_ids = pick_noise_ids(noise_ids, places)
        if len(self.projections) == 1:
            parts = split_features(self._dense(3 * d, self.projections[0])(x, noise_ids), 3)
        elif places is None and self._go_together():
            y = self._together(x)
            if rotate is None and self._is_packable(y, bias):
                attended = self._attend_packed(y, bias, noise_ids)
                if self.output is None:
                    return attended
                return self._dense(d, self.output, self.output_init)(attended, noise_ids)
            parts = [y[:, :, i] for i in range(len(self.projections))]
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
        if isinstance(bias, Sight):
            bias = bias.pick(places)
        elif places is not None and bias.shape[2] != 1:
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
        bias: Seen,
        asking: NoiseIds,
        noise_ids: NoiseIds,
    ) -> Float[Array, "b q d"]:
        """Attends over axis s; a method of its own, so that a strategy can add keys and values.

        Args:
          query: of the tokens whose output is wanted.
          key: of those that may be attended to.
          value: likewise.
          bias: added to the scores before the softmax, [b 1 q s], or what it follows from.
          asking: noise ids of the queries' tokens.
          noise_ids: of the keys' tokens.
        """
        b, q, h, k = query.shape
        kernel, dropout = self.kernel(query, key, bias, noise_ids), Dropout(self.dropout_rate)
        if isinstance(bias, Sight) and kernel in ("banded", "blockwise", "fused"):
            arguments = query, key, value, bias, self.dtype, dropout.of_pairs(noise_ids, asking)
            if kernel == "fused":
                attended = fused_rows(*arguments, lowering_for(device_of(self.dtype)))
            elif kernel == "banded":
                attended = banded_attention(*arguments, band(bias.window or 0))
            else:
                attended = blockwise_attention(
                    *arguments, _blocks(query, key, bias, device_of(self.dtype))
                )
            return attended.reshape(b, q, h * k)
        bias = bias.bias() if isinstance(bias, Sight) else bias
        if kernel == "cudnn":
            attended = fused_attention(query, key, value, bias, self.dtype)
        elif activation_dtype(self.dtype) == jnp.bfloat16 and q != 1:
            parts = (part.astype(jnp.bfloat16) for part in (query, key, value))
            attended = narrow_attention(*parts, bias, dropout.of_pairs(noise_ids, asking))
        else:
            drop = partial(dropout, noise_ids=noise_ids, asking=asking)
            attended = dense_attention(query, key, value, bias, self.dtype, drop)
        return attended.reshape(b, q, h * k)

    def kernel(self, query: Array, key: Array, bias: Seen, noise_ids: NoiseIds) -> str:
        """What computes attention, for arguments of `attend`: `cudnn`, or as of `choose_path`."""
        q, k = query.shape[1], query.shape[-1]
        rate = 0.0 if noise_ids is None else self.dropout_rate
        path = "xla"
        if isinstance(bias, Sight):
            window, wanted = bias.window if bias.in_order else None, attention_of(self.dtype)
            path = choose_path(q, key.shape[1], window, wanted)
            lowering = lowering_for(device_of(self.dtype))
            if path == "fused" and not fits(lowering, q, key.shape[1], k):
                path = choose_path(q, key.shape[1], window)
        # JAX gives no gradient of an odd number of queries, and one query is quick in any case; and
        # what is exported for any number may be given an odd one.
        is_even = isinstance(q, int) and q % 2 == 0
        if path != "fused" and is_even and attention_kernel(self.dtype, k, rate) == "cudnn":
            return "cudnn"
        return path

    def _go_together(self) -> bool:
        """Whether query, key and value come of one product: not where leaves were added to some.

        On a CPU they do not either: there a copy of the matrices costs more than it saves.
        """
        if self.is_initializing() or device_of(self.dtype).platform == "cpu":
            return False
        own = {"kernel", "bias"} if self.use_bias else {"kernel"}
        return all(self.get_variable("params", name).keys() == own for name in self.projections)

    def _is_packable(self, y: Float[Array, "b t 3 d"], bias: Seen) -> bool:
        """Whether one fused kernel takes queries, keys and values as one product gives them.

        A strategy may hold leaves here that change what is attended to.
        """
        own = self.variables["params"].keys() <= {*self.projections, self.output}
        lowering, t = lowering_for(device_of(self.dtype)), y.shape[1]
        if not own or not isinstance(bias, Sight) or bias.free or not isinstance(t, int):
            return False
        one = y[:, :, 0].reshape(*y.shape[:2], self.num_heads, -1)
        is_fused = self.kernel(one, one, bias, None) == "fused"
        return is_fused and is_packable(lowering, t)

    def _attend_packed(
        self, y: Float[Array, "b t 3 d"], sight: Any, noise_ids: NoiseIds
    ) -> Float[Array, "b t d"]:
        packed = y.reshape(*y.shape[:3], self.num_heads, -1)  # [b t 3 d] -> [b t 3 h k]
        drop = Dropout(self.dropout_rate).of_pairs(noise_ids, noise_ids)
        lowering = lowering_for(device_of(self.dtype))
        attended = fused_packed(packed, sight, self.dtype, drop, lowering)
        return attended.reshape(*y.shape[:2], -1)

    def _together(self, x: Float[Array, "b t d"]) -> Float[Array, "b t 3 d"]:
        """Query, key and value by one product with their matrices side by side."""
        held = [self.get_variable("params", name) for name in self.projections]
        kernels = jnp.stack([leaves["kernel"].astype(self.dtype) for leaves in held], axis=1)
        if self.use_bias:
            # Apart, or a GPU's compiler puts them together anew for each token, in another kernel.
            bias = jax.lax.optimization_barrier(jnp.stack([leaves["bias"] for leaves in held]))
            return affine(x, kernels, bias, self.dtype)
        return jnp.tensordot(x.astype(self.dtype), kernels, 1)

    def _dense(self, features: int, name: str, init: Init | None = None) -> Dense:
        init = self.kernel_init if init is None else init
        return dense(features, init, self.dtype, name, self.use_bias)


def _blocks(
    query: Float[Array, "b q h k"], key: Float[Array, "b s h k"], seen: Sight, device: Device
) -> Blocks:
    """A CPU takes row by row, whose block stays in its cache; others have use for all at once.

    Of packed rows, small blocks leave out more of what is not seen.
    """
    b, q, s = *query.shape[:2], key.shape[1]
    if device.platform == "cpu" and isinstance(b, int):
        sizes, rows = (128, 128) if seen.is_packed else (256, 512), 1
    else:
        sizes, rows = (256, 256) if seen.is_packed else (512, 512), b
    size_q, size_s = (min(size, -(-n // 8) * 8) for size, n in zip(sizes, (q, s), strict=True))
    return Blocks(size_q, size_s, rows)
