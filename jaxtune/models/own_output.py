"""The end of both halves of a post-norm layer, by fewer kernels than its modules one by one."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.activations import ACTIVATIONS, activated_product
from jaxtune.models.arithmetic import attention_of, device_of
from jaxtune.models.fused import lowering_for
from jaxtune.models.fused_norm import Noise, fits, normed_sum
from jaxtune.models.layers import Dropout, NoiseIds, layer_norm
from jaxtune.models.products import activation_dtype, affine, product


class Ending(NamedTuple):
    """How a half of a layer ends: `LayerNorm(residual + dropout(activation(x) W + b))`.

    Attributes:
      dropout: of what the product gives.
      eps: of LayerNorm.
      dtype: of the products.
      activation: of what the product takes; None for none.
    """

    dropout: Dropout
    eps: float
    dtype: Any
    activation: str | None = None


def own_output(
    module: nn.Module,
    x: Float[Array, "b t f"],
    residual: Float[Array, "b t d"],
    noise_ids: NoiseIds,
    ending: Ending,
) -> Float[Array, "b t d"] | None:
    """The end of a half, in bfloat16 and with parameters that are the model's own; else None.

    The last three steps are one kernel a pass where `precision.attention` is `fused`, on a GPU.

    Args:
      module: whose submodules `dense` and `LayerNorm` have the parameters; a strategy may have
        added some, of which nothing is known here.
      x: what the product takes, or its activation.
      residual: that is added.
      noise_ids: of the tokens.
      ending: what is done.
    """
    if module.is_initializing() or activation_dtype(ending.dtype) != jnp.bfloat16:
        return None
    layer: Any = module.get_variable("params", "dense")
    norm: Any = module.get_variable("params", "LayerNorm")
    if layer.keys() != {"kernel", "bias"} or norm.keys() != {"scale", "bias"}:
        return None
    lowering, (*lead, d) = lowering_for(device_of(ending.dtype)), residual.shape
    is_fused = attention_of(ending.dtype) == "fused" and lowering.compiler == "triton"
    known = all(isinstance(n, int) for n in (*lead, d)) and residual.dtype == jnp.bfloat16
    if not is_fused or not known or not fits(residual.size // d, d):
        y = ending.dropout(_product(x, layer, ending, is_whole=True), noise_ids)
        return layer_norm(ending.eps, ending.dtype)(residual + y)
    key, noise = ending.dropout.key_of(noise_ids), None
    if key is not None and noise_ids is not None:
        noise = Noise(jax.random.key_data(key).reshape(-1), noise_ids)
    y = _product(x, layer, ending, is_whole=False)
    vectors = layer["bias"], norm["scale"], norm["bias"]
    return normed_sum(y, residual, vectors, noise, ending.dropout.rate, ending.eps, lowering)


def _product(x: Array, layer: Any, ending: Ending, *, is_whole: bool) -> Array:
    """`activation(x) W`, with the bias if it is to be whole."""
    kernel, bias = layer["kernel"], layer["bias"] if is_whole else None
    if ending.activation is not None:
        if x.dtype == jnp.bfloat16:
            return activated_product(ending.activation, x, kernel.astype(jnp.bfloat16), bias)
        x = ACTIVATIONS[ending.activation](x)
    if bias is None:
        return product(x, kernel, ending.dtype)
    return affine(x, kernel, bias, ending.dtype)
