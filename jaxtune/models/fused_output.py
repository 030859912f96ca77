"""The end of both halves of a post-norm layer by the kernels of `fused_norm`, where they fit."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.arithmetic import attention_of, device_of
from jaxtune.models.fused import lowering_for
from jaxtune.models.fused_norm import Noise, fits, normed_sum
from jaxtune.models.layers import Dropout, NoiseIds
from jaxtune.models.products import activation_dtype, product


def fused_output(
    module: nn.Module,
    x: Float[Array, "b t f"],
    residual: Float[Array, "b t d"],
    noise_ids: NoiseIds,
    dropout: Dropout,
    eps: float,
    dtype: Any,
) -> Float[Array, "b t d"] | None:
    """`LayerNorm(residual + dropout(x W + b))`; None where that is not for one kernel.

    It is where `precision.attention` is `fused`, on a GPU, in bfloat16, with parameters that are
    the model's own: a strategy may have added some.

    Args:
      module: whose submodules `dense` and `LayerNorm` have the parameters.
      x: what the product takes.
      residual: that is added.
      noise_ids: of the tokens.
      dropout: of what the product gives.
      eps: of LayerNorm.
      dtype: of the products.
    """
    lowering, (*lead, d) = lowering_for(device_of(dtype)), residual.shape
    if attention_of(dtype) != "fused" or lowering.compiler != "triton" or module.is_initializing():
        return None
    held: list[Any] = [module.get_variable("params", name) for name in ("dense", "LayerNorm")]
    own = held[0].keys() == {"kernel", "bias"} and held[1].keys() == {"scale", "bias"}
    known = all(isinstance(n, int) for n in (*lead, d))
    if activation_dtype(dtype) != jnp.bfloat16 or not own or not known:
        return None
    if residual.dtype != jnp.bfloat16 or not fits(residual.size // d, d):
        return None
    key = dropout.key_of(noise_ids)
    noise = None
    if key is not None and noise_ids is not None:
        noise = Noise(jax.random.key_data(key).reshape(-1), noise_ids)
    vectors = held[0]["bias"], held[1]["scale"], held[1]["bias"]
    y = product(x, held[0]["kernel"], dtype)
    return normed_sum(y, residual, vectors, noise, dropout.rate, eps, lowering)
