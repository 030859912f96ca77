"""The end of both halves of a post-norm layer, by fewer kernels than its modules one by one."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.activations import ACTIVATIONS, activated_product
from jaxtune.models.arithmetic import attention_of, device_of
from jaxtune.models.fused import lowering_for
from jaxtune.models.fused_call import Lowering
from jaxtune.models.fused_norm import Noise, fits, normed_sum
from jaxtune.models.fused_product import Widening, feed_forward, has_tiles
from jaxtune.models.layers import Dropout, NoiseIds, layer_norm
from jaxtune.models.products import activation_dtype, affine, is_shared, product

_AFFINE = {"kernel", "bias"}


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
    x: Float[Array, "b t f"] | Widening,
    residual: Float[Array, "b t d"],
    noise_ids: NoiseIds,
    ending: Ending,
) -> Float[Array, "b t d"] | None:
    """The end of a half, in bfloat16 and with parameters that are the model's own; else None.

    The last three steps are one kernel a pass where `precision.attention` is `fused`, on a GPU.

    Args:
      module: whose submodules `dense` and `LayerNorm` have the parameters; a strategy may have
        added some, of which nothing is known here.
      x: what the product takes, or its activation; or what gives that, of `own_widening`.
      residual: that is added.
      noise_ids: of the tokens.
      ending: what is done.
    """
    if module.is_initializing() or activation_dtype(ending.dtype) != jnp.bfloat16:
        return None
    leaves = _leaves_of(module.variables["params"])
    if leaves is None:
        return None
    (layer, norm), lowering = leaves, _kernels_for(residual, ending.dtype)
    if lowering is None:
        assert not isinstance(x, Widening)
        y = ending.dropout(_product(x, layer, ending, is_whole=True), noise_ids)
        return layer_norm(ending.eps, ending.dtype)(residual + y)
    key, noise = ending.dropout.key_of(noise_ids), None
    if key is not None and noise_ids is not None:
        noise = Noise(jax.random.key_data(key).reshape(-1), noise_ids)
    if isinstance(x, Widening):
        y = feed_forward(x, layer["kernel"], lowering)
    else:
        y = _product(x, layer, ending, is_whole=False)
    vectors = layer["bias"], norm["scale"], norm["bias"]
    return normed_sum(y, residual, vectors, noise, ending.dropout.rate, ending.eps, lowering)


def own_widening(
    module: nn.Module, x: Float[Array, "b t d"], dtype: Any, activation: str
) -> Widening | None:
    """What `output` of a layer takes where both products of a block are kernels of our own.

    That is where the end of the block is, its activation is `gelu` and its sizes have tiles; None
    elsewhere.

    Args:
      module: a layer whose block is `intermediate/dense` and `output`.
      x: what the block takes.
      dtype: of its products.
      activation: between them.
    """
    if module.is_initializing() or activation != "gelu" or _kernels_for(x, dtype) is None:
        return None
    params: Any = module.variables["params"]
    wide, end = params["intermediate"], params["output"]
    are_own = wide.keys() == {"dense"} and end.keys() == {"dense", "LayerNorm"}
    if not are_own or wide["dense"].keys() != _AFFINE or not _leaves_of(end) or is_shared():
        return None
    kernel, bias = wide["dense"]["kernel"], wide["dense"]["bias"]
    d, f = kernel.shape
    return Widening(x, kernel, bias) if has_tiles(x.size // d, d, f) else None


def _leaves_of(params: Any) -> tuple[Any, Any] | None:
    """Those of `dense` and `LayerNorm`; None where something stands beside the model's own."""
    layer, norm = params["dense"], params["LayerNorm"]
    is_own = layer.keys() == _AFFINE and norm.keys() == {"scale", "bias"}
    return (layer, norm) if is_own else None


def _kernels_for(residual: Array, dtype: Any) -> Lowering | None:
    """What kernels of our own are compiled by; None where compilers' are taken."""
    if attention_of(dtype) != "fused" or residual.dtype != jnp.bfloat16:
        return None
    lowering, (*lead, d) = lowering_for(device_of(dtype)), residual.shape
    known = all(isinstance(n, int) for n in (*lead, d))
    has_kernels = lowering.compiler == "triton" and known and fits(residual.size // d, d)
    return lowering if has_kernels else None


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
