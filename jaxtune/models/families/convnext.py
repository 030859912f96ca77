"""ConvNeXt: depthwise convolutions with residuals and LayerNorm, for images.

Source: Liu et al. 2022, A ConvNet for the 2020s.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.heads import output_layer
from jaxtune.models.hf_config import read_fields
from jaxtune.models.inputs import example_image, images_of, positions_in_image
from jaxtune.models.layers import NoiseIds, dense, layer_norm
from jaxtune.models.model import Layers, Part
from jaxtune.models.residual import DropPath

EPS = 1e-6  # of every LayerNorm but the last, whatever layer_norm_eps says
_WIDER = 4  # times the features inside a layer; no field of config.json changes it


@dataclasses.dataclass(frozen=True)
class ConvNextConfig:
    """The fields of a Hugging Face ConvNeXt `config.json` that shape the computation."""

    num_channels: int = 3
    patch_size: int = 4
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    layer_scale_init_value: float = 1e-6
    drop_path_rate: float = 0.0

    def drop_rate(self, layer: int) -> float:
        """The rate at which a layer is left out: from 0 at the first to the file's at the last."""
        return self.drop_path_rate * layer / max(sum(self.depths) - 1, 1)


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> ConvNextConfig:
    """See `Family`."""
    config = read_fields(ConvNextConfig, hf_config, source, activation="hidden_act")
    counts = len(config.hidden_sizes), hf_config.get("num_stages", len(config.depths))
    for field, count in zip(("hidden_sizes", "num_stages"), counts, strict=True):
        if count not in (None, len(config.depths)):
            raise UserError(
                f"{source}: depths has {len(config.depths)} stages and {field} {str(count)[:80]},"
                " expected as many."
            )
    if not 0 <= config.drop_path_rate < 1:
        raise UserError(
            f"{source}: drop_path_rate is {config.drop_path_rate:g}, expected at least 0 and below"
            " 1."
        )
    return config


class Layer(nn.Module):
    """`x + scale * W_2 act(W_1 norm(x * D))`, with D of 7 x 7 for each channel by itself.

    Attributes:
      rate: at which the branch is left out in training.
    """

    config: ConvNextConfig
    dtype: Any
    features: int
    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"], noise_ids: NoiseIds) -> Float[Array, "b h w d"]:
        """[b h w d] -> [b h w 4d] -> [b h w d]."""
        c, d = self.config, self.features
        y = nn.Conv(
            *(d, (7, 7)),
            padding=3,
            feature_group_count=d,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(c.initializer_range),
            name="dwconv",
        )(x)
        y = layer_norm(EPS, self.dtype, "layernorm")(y)
        y = dense(_WIDER * d, c.initializer_range, self.dtype, "pwconv1")(y)
        y = dense(d, c.initializer_range, self.dtype, "pwconv2")(ACTIVATIONS[c.hidden_act](y))
        if c.layer_scale_init_value > 0:
            begin = nn.initializers.constant(c.layer_scale_init_value)
            y = y * self.param("layer_scale_parameter", begin, (d,)).astype(y.dtype)
        return x + DropPath(self.rate)(y, noise_ids)


class Downsampling(nn.Module):
    """A LayerNorm, and a convolution over squares of four."""

    config: ConvNextConfig
    dtype: Any
    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b k l o"]:
        """[b h w i] -> [b h/2 w/2 o], rounded down."""
        x = layer_norm(EPS, self.dtype, "0")(x)
        return _patches(self.config, self.dtype, self.features, 2, "1")(x)


class Stage(nn.Module):
    """Layers of one width, behind a downsampling where the stage is not the first.

    Attributes:
      place: of the stage, from 0.
    """

    config: ConvNextConfig
    dtype: Any
    place: int

    def setup(self) -> None:
        """Makes the layers."""
        c, below = self.config, self.below
        width = c.hidden_sizes[self.place]
        if self.place:
            self.downsampling_layer = Downsampling(c, self.dtype, width)
        self.layers = Layers(
            lambda name: Layer(c, self.dtype, width, c.drop_rate(below + int(name)), name=name),
            c.depths[self.place],
        )

    @property
    def below(self) -> int:
        """Layers of the stages before it."""
        return sum(self.config.depths[: self.place])

    def __call__(self, x: Array, part: Part, noise_ids: NoiseIds) -> Array:
        """Those of its layers that are in a part, counted from the first stage's first."""
        own = Part(max(part.start - self.below, 0), max(part.stop - self.below, 0))
        if self.place and part.start <= self.below < part.stop:  # it belongs to the first layer
            x = self.downsampling_layer(x)
        return self.layers(x, own, noise_ids)


class Encoder(nn.Module):
    """The stages, under the name that the files give them."""

    config: ConvNextConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the stages."""
        self.stages = Layers(
            lambda name: Stage(self.config, self.dtype, int(name), name=name),
            len(self.config.depths),
        )

    def __call__(self, x: Array, part: Part, noise_ids: NoiseIds) -> Array:
        """Those of the layers that are in a part."""
        return self.stages(x, Part(0, len(self.config.depths)), part, noise_ids)


class Embeddings(nn.Module):
    """Linear patches and a LayerNorm."""

    config: ConvNextConfig
    dtype: Any

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b k l d"]:
        """[b h w c] -> [b h/patch w/patch d], rounded down."""
        c = self.config
        x = _patches(c, self.dtype, c.hidden_sizes[0], c.patch_size, "patch_embeddings")(images)
        return layer_norm(EPS, self.dtype, "layernorm")(x)


class ConvNext(nn.Module):
    """Patches and stages in parts that can run alone; the layers of all stages count as one row."""

    config: ConvNextConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the patches, the stages and the last LayerNorm."""
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.encoder = Encoder(c, self.dtype)
        self.layernorm = layer_norm(c.layer_norm_eps, self.dtype, None)

    @property
    def num_layers(self) -> int:
        """Layers of all stages."""
        return sum(self.config.depths)

    def example_batch(self) -> Batch:
        """One image that leaves one place in the last stage."""
        c = self.config
        return example_image(c.patch_size * 2 ** (len(c.depths) - 1), c.num_channels)

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """One: what is dropped is all of an image."""
        return positions_in_image(1, batch)

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b h w d"]:
        """The input of layer 0, from `pixel_values`.

        Raises:
          UserError: images of which the last stage would have no place left.
        """
        images = images_of(batch, self.config.num_channels)
        least = self.config.patch_size * 2 ** (len(self.config.depths) - 1)
        if min(images.shape[1:3]) < least:
            raise UserError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels are too small for this"
                f" ConvNeXt: resize them to {least} x {least} at least."
            )
        return self.embeddings(images)

    def run_layers(
        self, x: Float[Array, "b h w i"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b k l o"]:
        """The output of the last layer of a part."""
        return self.encoder(x, part, noise_ids)

    def pool(self, x: Float[Array, "b h w d"]) -> Float[Array, "b d"]:
        """The LayerNorm of the mean over all places."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return self.layernorm(x.mean(axis=(1, 2)))


class ImageHead(nn.Module):
    """One linear layer on what is pooled."""

    config: ConvNextConfig
    num_outputs: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w d"], batch: Batch, backbone: ConvNext, noise_ids: NoiseIds
    ) -> Float[Array, "b c"]:
        """Logits of each image."""
        pooled = backbone.pool(x)
        return output_layer(self.num_outputs, self.config.initializer_range, self.dtype)(pooled)


def _patches(config: ConvNextConfig, dtype: Any, features: int, side: int, name: str) -> nn.Conv:
    """A convolution over squares that do not overlap."""
    init, sides = nn.initializers.normal(config.initializer_range), (side, side)
    return nn.Conv(features, sides, sides, "VALID", dtype=dtype, kernel_init=init, name=name)


NAMES = Names(
    layers=r"(?:^|/)stages/(\d+)/(?:layers/(\d+)|downsampling_layer)/",  # the first layer's
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)(?:layernorm/(?:scale|bias)$|downsampling_layer/0/)",
)

SHARDING_RULES = (
    (r"(?:patch_embeddings|downsampling_layer/1|dwconv)/kernel$", P(None, None, None, "fsdp")),
    (r"/pwconv1/kernel$", P("fsdp", "tensor")),
    (r"/pwconv1/bias$", P("tensor")),
    (r"/pwconv2/kernel$", P("tensor", "fsdp")),
)

CONVNEXT = Family(
    model_type="convnext",
    prefix="convnext",
    backbone=ConvNext,
    heads={"image": Head("ConvNextForImageClassification", ImageHead, ("classifier",))},
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"(?!)",  # none
    sharding_rules=SHARDING_RULES,
)
