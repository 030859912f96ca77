"""Activations, by the name that a model's `config.json` gives them.

In bfloat16, which stands between products on accelerators alone, they are computed in float32 and
rounded once; and what waits for the gradient is their input, from which its factor follows.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.products import bias_gradient, narrow_affine

Activation = Callable[[Float[Array, "*n"]], Float[Array, "*n"]]

_WIDE: Mapping[str, Activation] = {
    # jax.nn.gelu computes the exact one by erfc, which takes three times as long on a CPU.
    "gelu": lambda x: 0.5 * x * (1 + jax.lax.erf(x * jnp.asarray(2**-0.5, x.dtype))),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activate(name: str, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The activation of a name.

    Args:
      name: one of ACTIVATIONS.
      x: its input.
    """
    return _narrow(name, x) if x.dtype == jnp.bfloat16 else _WIDE[name](x)


ACTIVATIONS: Mapping[str, Activation] = {name: partial(activate, name) for name in _WIDE}
"""Activations by the name that `hidden_act` gives them."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow(name: str, x: Array) -> Array:
    return _WIDE[name](x.astype(jnp.float32)).astype(x.dtype)


def _forward(name: str, x: Array) -> tuple[Array, Array]:
    return _narrow(name, x), x


def _backward(name: str, x: Array, g: Array) -> tuple[Array]:
    _, pull = jax.vjp(_WIDE[name], x.astype(jnp.float32))
    return (pull(g.astype(jnp.float32))[0].astype(x.dtype),)


_narrow.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def activated_product(
    name: str,
    x: Float[Array, "*m k"],
    kernel: Float[Array, "k n"],
    bias: Float[Array, " n"] | None = None,
) -> Float[Array, "*m n"]:
    """`activation(x) W + b`; what was activated is computed again for the gradient, does not wait.

    In a feed-forward block it is as large as its input, and all else that waits of it.

    Args:
      name: of the activation.
      x: bfloat16.
      kernel: W, in bfloat16.
      bias: b; None for 0.
    """
    x = activate(name, x)
    return jnp.matmul(x, kernel) if bias is None else narrow_affine(x, kernel, bias)


def _product_forward(
    name: str, x: Array, kernel: Array, bias: Array | None
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    return activated_product(name, x, kernel, bias), (x, kernel, bias)


def _product_backward(
    name: str, saved: tuple[Array, Array, Array | None], g: Array
) -> tuple[Array, Array, Array | None]:
    x, kernel, bias = saved
    # Or compilers see what was activated in the forward pass in it, and keep that after all.
    x, g = jax.lax.optimization_barrier((x, g))
    rows = tuple(range(x.ndim - 1))
    by_kernel = jax.lax.dot_general(activate(name, x), g, ((rows, rows), ((), ())))
    by_x = _backward(name, x, jnp.matmul(g, kernel.T))[0]
    return by_x, by_kernel, None if bias is None else bias_gradient(g, bias)


activated_product.defvjp(_product_forward, _product_backward)
