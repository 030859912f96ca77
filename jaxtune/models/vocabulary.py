"""The last layer of a language model, which gives a logit for each word, and what it is made of.

Its outputs over all tokens, [b t v], are most of what such a model needs room for. So it can leave
them to whoever reads them: `Words` are logits that are not computed yet.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jaxtyping import Array, Float

from jaxtune.core.types import ApplyFn, Batch, Params, PRNGKey
from jaxtune.models.layers import Dense, Init, NoiseIds, dense
from jaxtune.models.products import activation_dtype, product, transposed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Words:
    """Logits over the vocabulary, `x E^T + b`, before they are computed.

    Attributes:
      states: x, of each token, [... d].
      table: E, one row for each word, [v d].
      bias: b, [v]; None for none.
      dtype: that states and table are rounded to before; sums are float32 at least.
    """

    states: Any
    table: Any
    bias: Any
    dtype: Any = dataclasses.field(metadata={"static": True})

    def logits(self) -> Float[Array, "... v"]:
        """All of them."""
        found = _tied_logits(self.states, self.table, self.dtype)
        return found if self.bias is None else found + self.bias


class TiedLayer(nn.Module):
    """`x E^T + b` with the word embeddings for E, summed in float32."""

    dtype: Any

    def __call__(
        self,
        x: Float[Array, "b t d"],
        table: Float[Array, "v d"],
        bias: Float[Array, " v"] | None = None,
    ) -> Float[Array, "b t v"]:
        """Logits over the vocabulary."""
        return self.words(x, table, bias).logits()

    def words(
        self,
        x: Float[Array, "b t d"],
        table: Float[Array, "v d"],
        bias: Float[Array, " v"] | None = None,
    ) -> Words:
        """What they are made of."""
        return Words(x, table, bias, self.dtype)


class OwnLayer(Dense):
    """`x W + b` with a matrix that is no embedding."""

    def words(self, x: Float[Array, "b t d"], noise_ids: NoiseIds = None) -> Words | None:
        """What its outputs are made of; None where a strategy has changed what they are."""
        own: Any = self.variables["params"]
        if not own.keys() <= {"kernel", "bias"}:
            return None
        return Words(x, own["kernel"].T, own.get("bias"), self.dtype)


class WordBias(nn.Module):
    """A bias for each word, where the files keep it apart from the word embeddings."""

    size: int

    @nn.compact
    def __call__(self) -> Float[Array, " v"]:
        """The biases."""
        return self.param("bias", nn.initializers.zeros, (self.size,))


def own_layer(size: int, init: Init, dtype: Any, name: str, use_bias: bool) -> Dense:
    """A matrix of its own for the words, whose products are float32 at least."""
    wide = jnp.promote_types(dtype, jnp.float32)
    return dense(size, init, wide, name, use_bias, OwnLayer)


def leaving_words(apply_fn: ApplyFn) -> ApplyFn:
    """The model, which gives `Words` in the place of logits over the vocabulary.

    It gives logits after all where a strategy adds parameters to a matrix that is no embedding, and
    on a mesh whose axes are explicit, where JAX asks to be told where each part of `Words` lies.

    Args:
      apply_fn: of a jaxtune model, with whatever a strategy does to it.
    """

    def give(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, TiedLayer | OwnLayer):
            words = layer.words(*args, **kwargs)
            return call(*args, **kwargs) if words is None else words
        return call(*args, **kwargs)

    def leaving(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        if AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types:
            return apply_fn(params, batch, key=key, train=train)
        with nn.intercept_methods(give):
            return apply_fn(params, batch, key=key, train=train)

    return leaving


def _tied_logits(
    x: Float[Array, "... d"], table: Float[Array, "v d"], dtype: Any
) -> Float[Array, "... v"]:
    at_least_float32 = jnp.promote_types(dtype, jnp.float32)
    if activation_dtype(dtype) == at_least_float32:
        return product(x, transposed(table), dtype)
    table = table.astype(dtype)
    return jnp.einsum("...d,vd->...v", x, table, preferred_element_type=at_least_float32)
