"""A backbone and a head, the same for every family: embed -> layers[i:j] -> head."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from jaxtune.core.types import Batch
from jaxtune.models.inputs import example_text, positions_of
from jaxtune.models.layers import NoiseIds
from jaxtune.models.noise_ids import noise_ids_of_examples, noise_ids_of_tokens
from jaxtune.models.places import Places, pick, places_of


class Part(NamedTuple):
    """Which layers run, and for which tokens.

    Attributes:
      start: the first layer.
      stop: the one after the last.
      places: of the tokens whose output of the last one is wanted.
    """

    start: int
    stop: int
    places: Places = None


class Model(nn.Module):
    """A model that runs whole, or in parts one after the other.

    A head may read the first or the last token of each example alone. Then the last layer computes
    nothing else: keys and values of all tokens, but queries, output and feed-forward of those.

    Attributes:
      make_backbone: takes `name`, gives a module with `num_layers`, `embed(batch, noise_ids)` and
        `run_layers(x, batch, part, noise_ids)`. Where a family has more, it has `word_table()`, the
        embeddings that a language model's outputs are tied to; `normalise(x)`, a last LayerNorm,
        which is in no layer so that the output of any can be the input of the next; and, where it
        reads no text, `example_batch()`, a smallest batch of zeros, and `positions(batch)`, those
        of tokens in their examples, [b t].
      prefix: the backbone's name.
      top: `(x, batch, backbone, noise_ids) -> outputs`; its parameters stand beside the backbone's
        name, not in a folder of their own. Its attribute `reads` is `first` or `last` where it
        takes those tokens of each example, [b n d], and their examples' noise ids, [b n], and gives
        [b n c]; where it has none, or None, it takes all tokens.
    """

    make_backbone: Callable[..., Any]
    prefix: str
    top: Any

    def setup(self) -> None:
        """Makes the backbone, and lifts the head's parameters to this level."""
        self.backbone = self.make_backbone(name=self.prefix)
        nn.share_scope(self, self.top)

    def embed(self, batch: Batch, train: bool = False) -> Float[Array, "b t d"]:
        """The input of layer 0."""
        return self.backbone.embed(batch, self.noise_ids(batch, train))

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, start: int, stop: int, train: bool = False
    ) -> Float[Array, "b t d"]:
        """The output of layer `stop - 1` for the input `x` of layer `start`."""
        return self.backbone.run_layers(x, batch, Part(start, stop), self.noise_ids(batch, train))

    @nn.nowrap
    def example_batch(self) -> Batch:
        """A smallest batch of zeros."""
        return getattr(self.make_backbone(), "example_batch", example_text)()

    def noise_ids(self, batch: Batch, train: bool) -> NoiseIds:
        """Of the tokens of a batch in training, [b t]."""
        if not train:
            return None
        positions = getattr(self.backbone, "positions", positions_of)
        return noise_ids_of_tokens(batch, positions(batch))

    def places(self, x: Float[Array, "b t d"], batch: Batch) -> Places:
        """Where the tokens are that the head reads; None for all of them."""
        reads = getattr(self.top, "reads", None)
        return None if reads is None else places_of(batch, reads, x.shape[0])

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
        places = self.places(x, batch) if stop == self.backbone.num_layers else None
        return self.backbone.run_layers(x, batch, Part(0, stop, places), None)

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
        part = Part(start, count, self.places(x, batch))
        x = self.backbone.run_layers(x, batch, part, self.noise_ids(batch, train))
        return self.read_out(x, batch, train)

    def observe(
        self,
        x: Float[Array, "b t d"] | None,
        batch: Batch,
        start: int,
        observed: tuple[int, ...],
        train: bool = False,
    ) -> tuple[Array, tuple[Float[Array, "b t d"], ...]]:
        """Outputs as of `suffix`, and some hidden states on the way to them, of all tokens.

        Args:
          x: the input of layer `start`, of all tokens; None for the model's own, of layer 0.
          batch: as for the whole model.
          start: from 0 to the number of layers.
          observed: inputs of layers, or the number of layers for the last one's output, in
            increasing order from `start`.
          train: whether dropout is on.
        """
        y = self.embed(batch, train) if x is None else x
        states, noise_ids = [], self.noise_ids(batch, train)
        for stop in observed:
            if stop > start:
                y = self.backbone.run_layers(y, batch, Part(start, stop), noise_ids)
            states.append(y)
            start = stop
        if start == self.backbone.num_layers:
            return self.read_out(pick(y, self.places(y, batch)), batch, train), tuple(states)
        return self.suffix(y, batch, start, train), tuple(states)

    def read_out(self, x: Float[Array, "b n d"], batch: Batch, train: bool = False) -> Array:
        """Outputs in float32 from the output of the last layer at `places`."""
        reads = getattr(self.top, "reads", None)
        examples = noise_ids_of_examples(batch, x.shape[0]) if train and reads else None
        x = self.normalise(x)
        if reads is None:
            return self.top(x, batch, self.backbone, self.noise_ids(batch, train))
        outputs = self.top(x, batch, self.backbone, examples)
        return outputs if "segment_ids" in batch else outputs[:, 0]  # [b 1 c] -> [b c]

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What the head stands on, from the output of the last layer."""
        own = getattr(self.backbone, "normalise", None)
        return x if own is None else own(x)

    def last_states(self, batch: Batch) -> Float[Array, "b t d"]:
        """What a head that reads all tokens stands on, without dropout."""
        return self.normalise(
            self.run_layers(self.embed(batch), batch, 0, self.backbone.num_layers)
        )

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

    def __call__(self, x: Array, part: Part, *rest: Any) -> Array:
        """The output of the last layer of a part, each fed the one before.

        Args:
          x: the input of layer `part.start`.
          part: which layers.
          *rest: what every layer takes.
        """
        layers = self.layers[part.start : part.stop]
        for layer in layers:
            last = part.places is not None and layer is layers[-1]
            x = layer(x, *rest, part.places) if last else layer(x, *rest)
        return x


class Encoder(nn.Module):
    """Holds the layers under the name `layer`, as the files of most encoders do."""

    make_layer: Callable[..., nn.Module]
    count: int

    def setup(self) -> None:
        """Makes the layers."""
        self.layer = Layers(self.make_layer, self.count)

    def __call__(self, x: Array, part: Part, *rest: Any) -> Array:
        """See `Layers`."""
        return self.layer(x, part, *rest)
