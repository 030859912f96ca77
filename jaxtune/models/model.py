"""A backbone and a head, the same for every family: embed -> layers[i:j] -> head."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core.types import Batch, segment_mask
from jaxtune.models.layers import (
    ACTIVATIONS,
    Dense,
    Dropout,
    Spread,
    dense,
    layer_norm,
    pick,
    positions_of,
)
from jaxtune.models.products import activation_dtype, product, transposed
from jaxtune.models.tokens import examples_of, tokens_of


def example_text() -> Batch:
    """One token of a text."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return {name: jnp.zeros((1, 1), jnp.int32) for name in names}


def example_image(size: int, channels: int) -> Batch:
    """One square image."""
    return {"pixel_values": jnp.zeros((1, size, size, channels))}


def positions_in_image(count: int, batch: Batch) -> Int[Array, "b t"]:
    """The positions of the `count` tokens that each image is cut into."""
    return jnp.broadcast_to(jnp.arange(count), (len(batch["pixel_values"]), count))


def places_of(batch: Batch, reads: str, rows: int) -> Int[Array, "b n"]:
    """The place of the `first` or `last` token of each example in its row.

    Args:
      batch: packed rows have `first_tokens` and `last_tokens` [b n]; other rows hold one example,
        n = 1, whose last token is the last that is no padding, on whichever side padding is.
      reads: `first` or `last`.
      rows: b.
    """
    if "segment_ids" in batch:
        return batch[f"{reads}_tokens"]
    if reads == "first":
        return jnp.zeros((rows, 1), jnp.int32)
    mask = batch["attention_mask"]
    places = jnp.arange(mask.shape[1])
    return jnp.max(jnp.where(mask > 0, places, 0), axis=-1, keepdims=True)  # [b t] -> [b 1]


def mean_tokens(x: Float[Array, "b t d"], batch: Batch) -> Float[Array, "b d"]:
    """The mean over the tokens of each example: [b d], or of packed rows [b n d]."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if "segment_ids" in batch:
        mask = segment_mask(batch).astype(x.dtype)  # [b n t]
        return mask @ x / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    mask = batch["attention_mask"][..., None].astype(x.dtype)  # [b t 1]
    return (x * mask).sum(1) / mask.sum(1)


class Model(nn.Module):
    """A model that runs whole, or in parts one after the other.

    A head may read the first or the last token of each example alone. Then the last layer computes
    nothing else: keys and values of all tokens, but queries, output and feed-forward of those.

    Attributes:
      make_backbone: takes `name`, gives a module with `num_layers`, `embed(batch, tokens)`,
        `run_layers(x, batch, start, stop, tokens, places)` and, for a language model,
        `word_table() -> nn.Embed`.
      prefix: the backbone's name.
      top: `(x, batch, backbone, tokens) -> outputs`; its parameters stand beside the backbone's
        name, not in a folder of their own. Its attribute `reads` is `first` or `last` where it
        takes those tokens of each example, [b n d], and gives [b n c]; where it has none, or None,
        it takes all tokens.
      example_batch: gives a smallest batch of zeros that the backbone can read.
      positions: of the tokens of a batch in their examples.

    What parts take as `tokens` are the names of the tokens of `x` (see `jaxtune.core.dropout`), or
    None where this is no training; of a head with `reads`, the names of the examples, [b n].
    """

    make_backbone: Callable[..., Any]
    prefix: str
    top: Any
    example_batch: Callable[[], Batch] = example_text
    positions: Callable[[Batch], Int[Array, "b t"]] = positions_of

    def setup(self) -> None:
        """Makes the backbone, and lifts the head's parameters to this level."""
        self.backbone = self.make_backbone(name=self.prefix)
        nn.share_scope(self, self.top)

    def embed(self, batch: Batch, train: bool = False) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.backbone.embed(batch, self.tokens(batch, train))

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool = False
    ) -> Float[Array, "b t d"]:
        """The output of layer `stop - 1` for the input `x` of layer `start`."""
        return self.backbone.run_layers(x, batch, start, stop, self.tokens(batch, train))

    def tokens(self, batch: Batch, train: bool) -> UInt32[Array, "b t"] | None:
        """The names of the tokens of a batch in training."""
        return tokens_of(batch, self.positions(batch)) if train else None

    def places(self, x: Float[Array, "b t d"], batch: Batch) -> Int[Array, "b n"] | None:
        """Where the tokens are that the head reads; None for all of them."""
        reads = getattr(self.top, "reads", None)
        return None if reads is None else places_of(batch, reads, len(x))

    def head(self, x: Float[Array, "b t d"], batch: Batch, train: bool = False) -> Array:
        """Outputs in float32 from the output of the last layer."""
        return self.read_out(pick(x, self.places(x, batch)), batch, train)

    def trunk(self, batch: Batch, stop: int) -> Array:
        """The output of layer `stop - 1` without dropout, from the model's input.

        Of all tokens, [b t d]; or, where no layer is left above and the head reads some of them
        alone, of these, [b n d].
        """
        x = self.embed(batch)
        if stop == 0:
            return x
        if stop < self.backbone.num_layers or self.places(x, batch) is None:
            return self.run_layers(x, batch, 0, stop)
        return self.backbone.run_layers(x, batch, 0, stop, None, self.places(x, batch))

    def suffix(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, train: bool = False
    ) -> Array:
        """Outputs in float32 from the input of layer `start`.

        Args:
          x: where no layer is left and the head reads some tokens alone, these, [b n d].
          batch: as for the whole model.
          start: from 0 to the number of layers.
          train: whether dropout is on.
        """
        count = self.backbone.num_layers
        if start == count:
            return self.read_out(x, batch, train)
        places = self.places(x, batch)
        if places is None:
            return self.read_out(self.run_layers(x, batch, start, count, train), batch, train)
        x = self.backbone.run_layers(x, batch, start, count, self.tokens(batch, train), places)
        return self.read_out(x, batch, train)

    def read_out(self, x: Float[Array, "b n d"], batch: Batch, train: bool = False) -> Array:
        """Outputs in float32 from the output of the last layer at `places`."""
        if getattr(self.top, "reads", None) is None:
            return self.top(self.normalise(x), batch, self.backbone, self.tokens(batch, train))
        examples = examples_of(batch, len(x)) if train else None
        outputs = self.top(self.normalise(x), batch, self.backbone, examples)
        return outputs if "segment_ids" in batch else outputs[:, 0]  # [b 1 c] -> [b c]

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What the head stands on, from the output of the last layer."""
        return x

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
            any `token_type_ids` and `position_ids`, all [b t]; or `pixel_values` [b h w c]. What
            dropout draws for a token follows from its `example_ids` ([b], of packed rows [b s])
            and its position.
          train: whether dropout is on; then the `dropout` rng must be given.
        """
        return self.suffix(self.embed(batch, train), batch, 0, train)


class NormedModel(Model):
    """A model whose head stands on the backbone's last LayerNorm, its method `normalise`.

    That is not in the last layer, so that the output of any layer can be the input of the next.
    """

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What the head stands on, from the output of the last layer."""
        return self.backbone.normalise(x)


class Layers(nn.Module):
    """Layers one after the other, named by their index.

    Attributes:
      make_layer: takes `name`, gives a module `(x, *rest) -> x`, or `(x, *rest, places) -> x`.
      count: how many.
    """

    make_layer: Callable[..., nn.Module]
    count: int

    def setup(self) -> None:
        """Makes the layers `0`, `1`, and so on."""
        self.layers = [self.make_layer(name=str(i)) for i in range(self.count)]

    def __call__(
        self, x: Array, start: int, stop: int, *rest: Any, places: Array | None = None
    ) -> Array:
        """The output of layer `stop - 1`, each fed the one before.

        Args:
          x: the input of layer `start`.
          start: the first layer.
          stop: the one after the last.
          *rest: what every layer takes.
          places: [b n], of the tokens whose output is wanted; None for all.
        """
        layers = self.layers[start:stop]
        for layer in layers:
            last = places is not None and layer is layers[-1]
            x = layer(x, *rest, places) if last else layer(x, *rest)
        return x


class Encoder(nn.Module):
    """Holds the layers under the name `layer`, as the files of most encoders do."""

    make_layer: Callable[..., nn.Module]
    count: int

    def setup(self) -> None:
        """Makes the layers."""
        self.layer = Layers(self.make_layer, self.count)

    def __call__(
        self, x: Array, start: int, stop: int, *rest: Any, places: Array | None = None
    ) -> Array:
        """See `Layers`."""
        return self.layer(x, start, stop, *rest, places=places)


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
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        backbone: Any,
        tokens: UInt32[Array, "b t"] | None,
    ) -> Float[Array, "b t c"]:
        """Logits of each token."""
        x = Dropout(self.dropout_rate)(x, tokens)
        last = output_layer(self.num_outputs, self.initializer_range, self.dtype, self.layer)
        return last(x, tokens)


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
    def __call__(
        self, x: Float[Array, "... d"], tokens: UInt32[Array, "..."] | None
    ) -> Float[Array, "... d"]:
        """[... d] -> [... d]."""
        width, spread = x.shape[-1], self.initializer_range
        x = dense(width, spread, self.dtype, self.dense_name, self.use_bias)(x, tokens)
        x = ACTIVATIONS[self.activation](x)
        return layer_norm(self.layer_norm_eps, self.dtype, self.norm_name, self.norm_bias)(x)


def output_layer(
    features: int,
    initializer_range: Spread,
    dtype: Any,
    name: str | None = "classifier",
    use_bias: bool = True,
) -> Dense:
    """The last layer of a head, whose products are float32 at least."""
    at_least_float32 = jnp.promote_types(dtype, jnp.float32)
    return dense(features, initializer_range, at_least_float32, name, use_bias)


def tied_logits(x: Float[Array, "b t d"], words: nn.Embed, dtype: Any) -> Float[Array, "b t v"]:
    """Logits over the vocabulary from the word embeddings: `x E^T`, summed in float32."""
    at_least_float32 = jnp.promote_types(dtype, jnp.float32)
    if activation_dtype(dtype) == at_least_float32:
        return product(x, transposed(words.embedding), dtype)
    embedding = words.embedding.astype(dtype)
    return jnp.einsum("btd,vd->btv", x, embedding, preferred_element_type=at_least_float32)
