"""A backbone and a head, the same for every family: embed -> layers[i:j] -> head."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.models.layers import ACTIVATIONS, Spread, dense, layer_norm
from jaxtune.types import Batch


def example_text() -> Batch:
    """One token of a text."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: jnp.zeros((1, 1), jnp.int32) for name in names}


def example_image(size: int, channels: int) -> Batch:
    """One square image."""
    return {"pixel_values": jnp.zeros((1, size, size, channels))}


class Model(nn.Module):
    """A model that runs whole, or in parts one after the other.

    Attributes:
      make_backbone: takes `name`, gives a module with `num_layers`, `embed(batch, train)`,
        `run_layers(x, batch, start, stop, train)` and, for a language model,
        `word_table() -> nn.Embed`.
      prefix: the backbone's name.
      top: `(x, batch, backbone, train) -> outputs`; its parameters stand beside the backbone's
        name, not in a folder of their own.
      example_batch: gives a smallest batch of zeros that the backbone can read.
    """

    make_backbone: Callable[..., Any]
    prefix: str
    top: Any
    example_batch: Callable[[], Batch] = example_text

    def setup(self) -> None:
        """Makes the backbone, and lifts the head's parameters to this level."""
        self.backbone = self.make_backbone(name=self.prefix)
        nn.share_scope(self, self.top)

    def embed(self, batch: Batch, train: bool = False) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.backbone.embed(batch, train)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool = False
    ) -> Float[Array, "b t d"]:
        """The output of layer `stop - 1` for the input `x` of layer `start`."""
        return self.backbone.run_layers(x, batch, start, stop, train)

    def head(self, x: Float[Array, "b t d"], batch: Batch, train: bool = False) -> Array:
        """Outputs in float32 from the output of the last layer."""
        return self.top(x, batch, self.backbone, train)

    def hidden_states(self, batch: Batch) -> list[Float[Array, "b t d"]]:
        """The input of layer 0 and the output of every layer, without dropout."""
        states = [self.embed(batch)]
        for i in range(self.backbone.num_layers):
            states.append(self.run_layers(states[-1], batch, i, i + 1))
        return states

    def __call__(self, batch: Batch, train: bool = False) -> Array:
        """Outputs in float32: embed, all layers, head.

        Args:
          batch: what the family reads: int32 `input_ids`, `attention_mask`, and where there are
            any `token_type_ids` and `position_ids`, all [b t]; or `pixel_values` [b h w c].
          train: whether dropout is on; then the `dropout` rng must be given.
        """
        x = self.embed(batch, train)
        x = self.run_layers(x, batch, 0, self.backbone.num_layers, train)
        return self.head(x, batch, train)


class NormedModel(Model):
    """A model whose head stands on the backbone's last LayerNorm, its method `normalise`.

    That is not in the last layer, so that the output of any layer can be the input of the next.
    """

    def head(self, x: Float[Array, "b t d"], batch: Batch, train: bool = False) -> Array:
        """Outputs in float32 from the output of the last layer."""
        return self.top(self.backbone.normalise(x), batch, self.backbone, train)


class Layers(nn.Module):
    """Layers one after the other, named by their index.

    Attributes:
      make_layer: takes `name`, gives a module `(x, *rest) -> x`.
      count: how many.
    """

    make_layer: Callable[..., nn.Module]
    count: int

    def setup(self) -> None:
        """Makes the layers `0`, `1`, and so on."""
        self.layers = [self.make_layer(name=str(i)) for i in range(self.count)]

    def __call__(self, x: Array, start: int, stop: int, *rest: Any) -> Array:
        """The output of layer `stop - 1`, each fed the one before."""
        for layer in self.layers[start:stop]:
            x = layer(x, *rest)
        return x


class Encoder(nn.Module):
    """Holds the layers under the name `layer`, as the files of most encoders do."""

    make_layer: Callable[..., nn.Module]
    count: int

    def setup(self) -> None:
        """Makes the layers."""
        self.layer = Layers(self.make_layer, self.count)

    def __call__(self, x: Array, start: int, stop: int, *rest: Any) -> Array:
        """See `Layers`."""
        return self.layer(x, start, stop, *rest)


class TokenHead(nn.Module):
    """One linear layer on every token: classes of tokens, or starts and ends of spans.

    Attributes:
      layer: its name in the files.
    """

    num_outputs: int
    dropout_rate: float
    initializer_range: float
    dtype: Any
    layer: str = "classifier"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Any, train: bool
    ) -> Float[Array, "b t c"]:
        """Logits of each token."""
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return output_layer(self.num_outputs, self.initializer_range, self.dtype, self.layer)(x)


class Transform(nn.Module):
    """`LayerNorm(act(x W + b))`, what stands before the vocabulary in a masked language model.

    Attributes:
      dense_name: of the matrix.
      norm_name: of the LayerNorm.
      use_bias: whether the matrix has one.
      norm_bias: whether the LayerNorm has one.
    """

    activation: str
    layer_norm_eps: float
    initializer_range: Spread
    dtype: Any
    dense_name: str = "dense"
    norm_name: str = "LayerNorm"
    use_bias: bool = True
    norm_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """[... d] -> [... d]."""
        width, spread = x.shape[-1], self.initializer_range
        x = dense(width, spread, self.dtype, self.dense_name, self.use_bias)(x)
        x = ACTIVATIONS[self.activation](x)
        return layer_norm(self.layer_norm_eps, self.dtype, self.norm_name, self.norm_bias)(x)


def output_layer(
    features: int,
    initializer_range: Spread,
    dtype: Any,
    name: str | None = "classifier",
    use_bias: bool = True,
) -> nn.Dense:
    """The last layer of a head, whose products are float32 at least."""
    at_least_float32 = jnp.promote_types(dtype, jnp.float32)
    return dense(features, initializer_range, at_least_float32, name, use_bias)


def tied_logits(x: Float[Array, "b t d"], words: nn.Embed, dtype: Any) -> Float[Array, "b t v"]:
    """Logits over the vocabulary from the word embeddings: `x E^T`, summed in float32."""
    embedding = words.embedding.astype(dtype)
    return jnp.einsum(
        "btd,vd->btv", x, embedding, preferred_element_type=jnp.promote_types(dtype, jnp.float32)
    )
