"""The parts that every family's layers are made of.

Parameter names are those of the Hugging Face Flax models, or of the torch models where there was no
Flax one. Parameters are float32; `dtype` is what the products are computed in, and what stands
between them has `products.activation_dtype(dtype)`. The statistics of LayerNorm are float32 at
least.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core import dropout
from jaxtune.core.types import PRNGKey
from jaxtune.models.norm import NarrowLayerNorm
from jaxtune.models.products import activation_dtype, affine, product
from jaxtune.models.table_rows import are_few, table_rows

Init = float | jax.nn.initializers.Initializer
"""What weights are drawn from: N(0, s^2) for a number s, or as the initializer draws."""

NoiseIds = UInt32[Array, "..."] | None
"""Of the tokens of x, by all its axes but the last (see `jaxtune.core.dropout`); None where this is
no training, and dropout drops nothing."""


class Dropout(nn.Module):
    """Dropout by `jaxtune.core.dropout`, which knows the tokens."""

    rate: float

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "..."], noise_ids: NoiseIds, asking: NoiseIds = None
    ) -> Float[Array, "..."]:
        """[... d] -> [... d], or [b h q s] -> [b h q s].

        Args:
          inputs: features of tokens; of attention, probabilities.
          noise_ids: of the tokens; of attention, [b s].
          asking: of attention alone, [b q], noise ids of the queries' tokens.
        """
        if noise_ids is None or not self.rate:
            return inputs
        key = self.make_rng("dropout")
        if asking is None:
            return dropout.drop_features(inputs, self.rate, key, noise_ids)
        return dropout.drop_probabilities(inputs, self.rate, key, asking, noise_ids)

    def key_of(self, noise_ids: NoiseIds) -> PRNGKey | None:
        """The key that a call draws by, for kernels that drop themselves; None for nothing.

        Args:
          noise_ids: of the tokens.
        """
        return None if noise_ids is None or not self.rate else self.make_rng("dropout")

    def of_pairs(self, noise_ids: NoiseIds, asking: NoiseIds) -> dropout.Drop | None:
        """What a call does to probabilities, for one part of them at a time; None for nothing.

        Args:
          noise_ids: of the keys' tokens, [b s].
          asking: of the queries' tokens, [b q].
        """
        if noise_ids is None or asking is None or not self.rate:
            return None
        return dropout.Drop(self.rate, self.make_rng("dropout"), asking, noise_ids)


class Dense(nn.Dense):
    """`x W + b` by `products.affine`."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... i"], noise_ids: NoiseIds = None
    ) -> Float[Array, "... o"]:
        """[... i] -> [... o].

        Args:
          inputs: features of tokens.
          noise_ids: for strategies that drop some of the features; not read here.
        """
        del noise_ids
        shape = (inputs.shape[-1], self.features)
        kernel = self._param("kernel", self.kernel_init, shape)
        if not self.use_bias:
            return product(inputs, kernel, self.dtype)
        return affine(inputs, kernel, self._param("bias", self.bias_init, shape[1:]), self.dtype)

    def _param(self, name: str, init: Any, shape: tuple[int, ...]) -> Any:
        """As `param`, which draws a value again to see whether one that is there has its shape."""
        if not self.has_variable("params", name):
            return self.param(name, init, shape)
        value: Any = self.get_variable("params", name)
        assert value.shape == shape, f"{name} is {value.shape}, expected {shape}"
        return value


class Nested(nn.Module):
    """One module inside others that only hold it, where the files have more words in its name.

    Attributes:
      make: takes `name`, gives the module.
      inner: the names below that of this module, such as `predictions/transform`.
      reads: of a head; see `Model.top`.
    """

    make: Callable[..., Any]
    inner: str
    reads: str | None = None

    @nn.compact
    def __call__(self, *args: Any) -> Array:
        """What the module gives."""
        name, _, rest = self.inner.partition("/")
        make = partial(Nested, self.make, rest) if rest else self.make
        return make(name=name)(*args)


def dense(
    features: int,
    init: Init,
    dtype: Any,
    name: str | None,
    use_bias: bool = True,
    kind: type[Dense] = Dense,
) -> Dense:
    """`x W + b`."""
    kernel_init = _initializer(init)
    return kind(features, dtype=dtype, kernel_init=kernel_init, name=name, use_bias=use_bias)


class Table(nn.Embed):
    """An embedding table whose rows are float32 at least, so that no sum of them is rounded.

    Attributes:
      products: the dtype of the model's products; see `table_rows` for what follows from it.
    """

    products: Any = jnp.float32

    def __call__(self, inputs: Int[Array, "..."]) -> Float[Array, "... d"]:
        """The rows of some ids."""
        is_narrow = activation_dtype(self.products) == jnp.bfloat16
        if is_narrow and are_few(self.embedding, inputs):
            rows = table_rows(self.embedding, inputs)
        else:
            rows = super().__call__(inputs)
        return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def table(
    size: int, features: int, init: Init, name: str | None = None, dtype: Any = jnp.float32
) -> Table:
    """An embedding table; `dtype` is that of the model's products."""
    return Table(size, features, embedding_init=_initializer(init), products=dtype, name=name)


def layer_norm(
    eps: float, dtype: Any, name: str | None = "LayerNorm", use_bias: bool = True
) -> nn.LayerNorm | NarrowLayerNorm:
    """LayerNorm over the last axis; mean and variance in float32, the variance in two passes."""
    if activation_dtype(dtype) == jnp.bfloat16:
        return NarrowLayerNorm(eps, use_bias, name=name)
    return nn.LayerNorm(
        epsilon=eps,
        dtype=activation_dtype(dtype),
        use_fast_variance=False,
        use_bias=use_bias,
        name=name,
    )


def _initializer(init: Init) -> jax.nn.initializers.Initializer:
    return init if callable(init) else nn.initializers.normal(init)
