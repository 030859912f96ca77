"""Matrix products in a chosen dtype, laid out so that compilers use their fast kernels.

On a CPU XLA has fast bfloat16 kernels for products of row-major operands alone. The product of a
transposed left operand, which every gradient of weights is, is computed in float32 after all, and
so is one whose right operand is transposed where the result is float32. So both are copied into
place first: a copy of m k numbers beside a product of m k n.

There too, elementwise work in bfloat16 is float32 work between two conversions. So products in
bfloat16 give float32, and what stands between them stays float32. On other devices, where memory
traffic counts for more, bfloat16 products give bfloat16. Which device
it is, a dtype says that is an `Arithmetic`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.arithmetic import device_of


def activation_dtype(dtype: Any) -> Any:
    """What elementwise work between products in `dtype` is done in."""
    return jnp.promote_types(dtype, jnp.float32) if _copies_operands(dtype) else jnp.dtype(dtype)


def product(
    a: Float[Array, "... m k"], b: Float[Array, "... k n"], dtype: Any
) -> Float[Array, "... m n"]:
    """`a b`, with sums in float32 at least.

    Args:
      a: left operand; its leading axes are those of b, or b has none.
      b: right operand.
      dtype: that both are rounded to before.

    Returns:
      `activation_dtype(dtype)`.
    """
    if not _copies_operands(dtype):
        return jnp.matmul(a.astype(dtype), b.astype(dtype))
    if b.ndim > 2:
        return _product(a, b)
    flat = _product(a.reshape(-1, a.shape[-1]), b)  # [... m k] -> [m' k] -> [m' n]
    return flat.reshape(*a.shape[:-1], b.shape[-1])


def affine(
    x: Float[Array, "... k"], kernel: Float[Array, "k *n"], bias: Float[Array, "*n"], dtype: Any
) -> Float[Array, "..."]:
    """`x W + b`, as `product`; where that is bfloat16, rounded once, after the sum with b.

    Where devices share the sums (`tensor`), they are rounded before that too.

    Args:
      x: features of tokens.
      kernel: W.
      bias: b; its gradient is summed in float32.
      dtype: of the operands of the product.

    Returns:
      [... *n].
    """
    if activation_dtype(dtype) == jnp.bfloat16:
        return narrow_affine(x.astype(dtype), kernel.astype(dtype), bias)
    if kernel.ndim == 2:
        y = product(x, kernel, dtype)
    else:
        y = jnp.tensordot(x.astype(dtype), kernel.astype(dtype), 1)
    return y + bias.astype(y.dtype)


@jax.custom_vjp
def narrow_affine(
    x: Float[Array, "... k"], kernel: Float[Array, "k *n"], bias: Float[Array, "*n"]
) -> Float[Array, "..."]:
    """`affine` of x and W that are bfloat16 already, as what it gives is.

    Args:
      x: features of tokens.
      kernel: W.
      bias: b, in any float dtype.

    Returns:
      [... *n].
    """
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    if is_shared():  # the sums are sent, and a matrix that is reshaped is gathered
        y = jax.lax.dot_general(x, kernel, dims)
        return (y.astype(jnp.float32) + bias.astype(jnp.float32)).astype(x.dtype)
    shape = (*x.shape[:-1], *kernel.shape[1:])
    # A GPU adds a vector to what it multiplies.
    kernel, bias = kernel.reshape(kernel.shape[0], -1), bias.reshape(-1)
    y = jax.lax.dot_general(x, kernel, dims, preferred_element_type=jnp.float32)
    # Rounded by the kernel that multiplies: else a GPU rounds where it is read, and keeps it whole.
    y = jax.lax.optimization_barrier((y + bias.astype(jnp.float32)).astype(x.dtype))
    return y.reshape(shape)


def _affine_forward(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    return narrow_affine(x, kernel, bias), (x, kernel, bias)


def _affine_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    x, kernel, bias = saved
    lead, own = tuple(range(x.ndim - 1)), tuple(range(x.ndim - 1, g.ndim))
    by_x = jax.lax.dot_general(g, kernel, ((own, tuple(range(1, kernel.ndim))), ((), ())))
    by_kernel = jax.lax.dot_general(x, g, ((lead, lead), ((), ())))
    return by_x, by_kernel, bias_gradient(g, bias)


def bias_gradient(g: Float[Array, "..."], bias: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The gradient of a bias, summed in float32, from that of what it was added to.

    Args:
      g: of the sum, [... *n], in any float dtype.
      bias: whose shape and dtype it has.
    """
    if bias.ndim == 1:  # or compilers keep a copy in float32, or one before its last operation
        g = jax.lax.optimization_barrier(g)
    return g.reshape(-1, *bias.shape).astype(jnp.float32).sum(axis=0).astype(bias.dtype)


narrow_affine.defvjp(_affine_forward, _affine_backward)


def attention_scores(
    query: Float[Array, "b q h k"], key: Float[Array, "b s h k"], dtype: Any
) -> Float[Array, "b h q s"]:
    """`q k^T` of each head; see `product`."""
    if not _copies_operands(dtype):
        return jnp.einsum("bqhk,bshk->bhqs", query.astype(dtype), key.astype(dtype))
    return product(query.transpose(0, 2, 1, 3), key.transpose(0, 2, 3, 1), dtype)


def attention_values(
    probs: Float[Array, "b h q s"], value: Float[Array, "b s h k"], dtype: Any
) -> Float[Array, "b q h k"]:
    """`p v` of each head; see `product`."""
    if not _copies_operands(dtype):
        return jnp.einsum("bhqs,bshk->bqhk", probs.astype(dtype), value.astype(dtype))
    return product(probs, value.transpose(0, 2, 1, 3), dtype).transpose(0, 2, 1, 3)


def dense_attention(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    bias: Float[Array, "b 1 q s"],
    dtype: Any,
    drop: Callable[[Array], Array] | None,
) -> Float[Array, "b q h k"]:
    """`drop(softmax(q k^T / sqrt(k) + bias)) v`, all scores at once.

    Args:
      query: q of them a row.
      key: s of them a row.
      value: likewise.
      bias: 0 where a key may be attended to, very low elsewhere.
      dtype: what the products are computed in; see `product`.
      drop: what is done to the probabilities; None for nothing.
    """
    scores = attention_scores(query / query.shape[-1] ** 0.5, key, dtype)  # [b h q s]
    scores = scores.astype(jnp.promote_types(dtype, jnp.float32)) + bias
    probs = jax.nn.softmax(scores, axis=-1).astype(activation_dtype(dtype))
    probs = probs if drop is None else drop(probs)
    return attention_values(probs, value, dtype)


def wide_product(
    a: Float[Array, "*l m k"], b: Float[Array, "*l k n"], dtype: Any
) -> Float[Array, "*l m n"]:
    """`a b` of operands rounded to `dtype`, in float32 at least."""
    wide = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=wide)


def times_transposed(b: Float[Array, "n k"], dtype: Any) -> Callable[[Array], Array]:
    """`a -> a b^T` for many a, [m k] -> [m n], as `wide_product`; if b is to be copied, once."""
    if not _copies_operands(dtype):
        return lambda a: wide_product(a, b.T, dtype)
    turned = transposed(b.astype(dtype))
    return lambda a: wide_product(a, turned, dtype)


def add_product(
    sums: Float[Array, "m n"], a: Float[Array, "k m"], b: Float[Array, "k n"], dtype: Any
) -> Float[Array, "m n"]:
    """`sums + a^T b`, where a loop has the sums that need much room.

    A product on a CPU is computed beside what it is added to, so it is computed there a part of the
    rows at a time. Elsewhere it is added in place; and where devices share the sums (`tensor`),
    cutting them would gather them.

    Args:
      sums: float32 at least.
      a: left operand, transposed.
      b: right operand.
      dtype: that both are rounded to before.
    """
    size, rows = sums.shape[0], 1024
    if size <= rows or device_of(dtype).platform != "cpu" or is_shared():
        return sums + _transposed_product(a, b, dtype)

    def add(i: Array, sums: Array) -> Array:
        start = jnp.minimum(i * rows, size - rows)
        part = jax.lax.dynamic_slice_in_dim(a, start, rows, axis=1)
        part = jnp.where(start + jnp.arange(rows) >= i * rows, part, 0)  # the last overlaps
        old = jax.lax.dynamic_slice_in_dim(sums, start, rows)
        new = old + _transposed_product(part, b, dtype)
        return jax.lax.dynamic_update_slice_in_dim(sums, new, start, axis=0)

    return jax.lax.fori_loop(0, -(-size // rows), add, sums)


def _transposed_product(a: Array, b: Array, dtype: Any) -> Array:
    a = transposed(a.astype(dtype)) if _copies_operands(dtype) else a.T
    return wide_product(a, b, dtype)


def is_shared() -> bool:
    """Whether several devices share one model."""
    return jax.sharding.get_abstract_mesh().shape.get("tensor", 1) > 1


def attention_kernel(dtype: Any, head_size: int, dropout_rate: float) -> str:
    """What computes attention: `cudnn`, fused, or `xla`.

    cuDNN's kernel needs a card of compute capability 8.0, 16-bit numbers, and heads of at most 256
    features, a multiple of 8; JAX gives no dropout with it.
    """
    fits = jnp.dtype(dtype) in (jnp.bfloat16, jnp.float16) and head_size % 8 == 0
    device = device_of(dtype)
    if not fits or head_size > 256 or dropout_rate or device.platform != "gpu":
        return "xla"
    return "cudnn" if device.capability >= 8.0 else "xla"


def fused_attention(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    bias: Float[Array, "b 1 q s"],
    dtype: Any,
    implementation: Any = "cudnn",
) -> Float[Array, "b q h k"]:
    """`softmax(q k^T / sqrt(k) + bias) v` by one kernel.

    Args:
      query: q of them a row.
      key: s of them a row.
      value: likewise.
      bias: 0 where a key may be attended to, very low elsewhere; axes b and q may be 1.
      dtype: that queries, keys and values are rounded to.
      implementation: as `jax.nn.dot_product_attention` has it.
    """
    # A mask of one query for all is refused (jax#28974), and a float32 bias gives NaN gradients
    # (jax#32242), so the bias goes in as a whole mask.
    mask = jnp.broadcast_to(bias >= 0, (query.shape[0], 1, query.shape[1], key.shape[1]))
    parts = (part.astype(dtype) for part in (query, key, value))
    return jax.nn.dot_product_attention(*parts, mask=mask, implementation=implementation)


def _copies_operands(dtype: Any) -> bool:
    return jnp.dtype(dtype) == jnp.bfloat16 and device_of(dtype).platform == "cpu"


def _dot(a: Float[Array, "*l m k"], b: Float[Array, "*l k n"]) -> Float[Array, "*l m n"]:
    """Two bfloat16 operands, one float32 result."""
    leading = tuple(range(a.ndim - 2))
    dims = (((a.ndim - 1,), (a.ndim - 2,)), (leading, leading))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def transposed(x: Float[Array, "*l m n"]) -> Float[Array, "*l n m"]:
    """A copy, on whose account XLA does not leave the fast path, as it does for `swapaxes`."""
    *leading, m, n = x.shape
    axes = (*range(len(leading)), len(leading) + 2, len(leading), len(leading) + 1)
    return x.reshape(*leading, 1, m, n).transpose(axes).reshape(*leading, n, m)


@jax.custom_vjp
def _product(a: Float[Array, "*l m k"], b: Float[Array, "*l k n"]) -> Float[Array, "*l m n"]:
    return _dot(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def _forward(a: Array, b: Array) -> tuple[Array, tuple[Array, ...]]:
    rounded = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    kinds = jnp.zeros(0, a.dtype), jnp.zeros(0, b.dtype)
    return _dot(*rounded), (*rounded, *kinds)


def _backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array]:
    a, b, kind_a, kind_b = saved
    g = g.astype(jnp.bfloat16)
    grad_a = _dot(g, transposed(b))  # [m n] [n k] -> [m k]
    k, n = a.shape[-1], g.shape[-1]
    are_known = isinstance(k, int) and isinstance(n, int)  # not in an export for any length
    if not are_known or k <= n:  # the smaller one is copied
        grad_b = _dot(transposed(a), g)  # [k m] [m n] -> [k n]
    else:
        grad_b = transposed(_dot(transposed(g), a))  # [n m] [m k] -> [n k] -> [k n]
    return grad_a.astype(kind_a.dtype), grad_b.astype(kind_b.dtype)


_product.defvjp(_forward, _backward)
