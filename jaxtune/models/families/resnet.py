"""ResNet v1.5: convolutions with residuals and batch normalisation, for images.

Version 1.5 strides in the 3x3 convolution of a bottleneck, where the paper's version strides in the
first 1x1 (`downsample_in_bottleneck`).

Source: He et al. 2016, Deep Residual Learning for Image Recognition.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch, PRNGKey
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.batch_norm import BatchNorm, real_rows
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.hf_config import read_fields
from jaxtune.models.inputs import example_image, images_of, positions_in_image
from jaxtune.models.layers import Nested, NoiseIds
from jaxtune.models.model import Layers, Part

_REDUCTION = 4  # of the channels inside a bottleneck; no field of config.json changes it
_LAYER_TYPES = ("basic", "bottleneck")


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The fields of a Hugging Face ResNet `config.json` that shape the computation.

    Attributes:
      train_statistics: whether training normalises with each batch's statistics and moves the
        running ones; no field of the file.
    """

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    train_statistics: bool = True


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> ResNetConfig:
    """See `Family`."""
    fields = {name: value for name, value in hf_config.items() if name != "train_statistics"}
    config = read_fields(ResNetConfig, fields, source, activation="hidden_act")
    if config.layer_type not in _LAYER_TYPES:
        raise UserError(
            f"{source}: layer_type is {config.layer_type!r}, expected one of"
            f" {', '.join(_LAYER_TYPES)}."
        )
    if len(config.depths) != len(config.hidden_sizes):
        raise UserError(
            f"{source}: depths has {len(config.depths)} stages and hidden_sizes"
            f" {len(config.hidden_sizes)}, expected as many."
        )
    if config.layer_type == "bottleneck" and min(config.hidden_sizes) < _REDUCTION:
        raise UserError(
            f"{source}: hidden_sizes has {min(config.hidden_sizes)}, expected at least"
            f" {_REDUCTION} with bottleneck layers, which have a quarter of it inside."
        )
    return config


class ConvolutionNorm(nn.Module):
    """`act(norm(x * W))`, without a bias; torch's padding, which keeps the size at stride 1.

    Attributes:
      size: of the kernel, odd.
      activation: None for none.
    """

    config: ResNetConfig
    dtype: Any
    features: int
    size: int
    stride: int
    activation: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], real: Bool[Array, " b"], train: bool
    ) -> Float[Array, "b k l o"]:
        """[b h w i] -> [b h/stride w/stride o], rounded up."""
        x = nn.Conv(
            self.features,
            (self.size, self.size),
            strides=self.stride,
            padding=self.size // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            name="convolution",
        )(x)
        x = BatchNorm(self.config.train_statistics, self.dtype, name="normalization")(
            x, real, train
        )
        return x if self.activation is None else ACTIVATIONS[self.activation](x)


class Convolutions(nn.Module):
    """The convolutions of a layer, one after the other, with an activation between them.

    Attributes:
      sizes: features, size of the kernel and stride of each.
    """

    config: ResNetConfig
    dtype: Any
    sizes: tuple[tuple[int, int, int], ...]

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], real: Bool[Array, " b"], train: bool
    ) -> Float[Array, "b k l o"]:
        """The branch beside the residual."""
        for i, (features, size, stride) in enumerate(self.sizes):
            # transformers has a ReLU here whatever hidden_act says
            activation = None if i == len(self.sizes) - 1 else "relu"
            x = ConvolutionNorm(
                self.config, self.dtype, features, size, stride, activation, name=str(i)
            )(x, real, train)
        return x


class Layer(nn.Module):
    """`act(convolutions(x) + x)`; x is projected where the shapes differ.

    Attributes:
      features: channels of the output.
      stride: of the whole layer.
    """

    config: ResNetConfig
    dtype: Any
    features: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], real: Bool[Array, " b"], train: bool
    ) -> Float[Array, "b k l o"]:
        """[b h w i] -> [b h/stride w/stride o], rounded up."""
        c, dtype = self.config, self.dtype
        y = Convolutions(c, dtype, self._sizes(), name="layer")(x, real, train)
        if x.shape[-1] != self.features or self.stride != 1:
            x = ConvolutionNorm(c, dtype, self.features, 1, self.stride, name="shortcut")(
                x, real, train
            )
        return ACTIVATIONS[c.hidden_act](y + x)

    def _sizes(self) -> tuple[tuple[int, int, int], ...]:
        if self.config.layer_type == "basic":
            return ((self.features, 3, self.stride), (self.features, 3, 1))
        inside = self.features // _REDUCTION
        first, second = (
            (self.stride, 1) if self.config.downsample_in_bottleneck else (1, self.stride)
        )
        return ((inside, 1, first), (inside, 3, second), (self.features, 1, 1))


class Stage(nn.Module):
    """Layers of one width, of which the first may stride.

    Attributes:
      place: of the stage, from 0.
    """

    config: ResNetConfig
    dtype: Any
    place: int

    def setup(self) -> None:
        """Makes the layers."""
        c, place = self.config, self.place
        stride = 2 if place > 0 or c.downsample_in_first_stage else 1
        make_layer = partial(_make_layer, c, self.dtype, c.hidden_sizes[place], stride)
        self.layers = Layers(make_layer, c.depths[place])

    def __call__(self, x: Array, part: Part, real: Bool[Array, " b"], train: bool) -> Array:
        """Those of its layers that are in a part, counted from the first stage's first."""
        below = sum(self.config.depths[: self.place])
        own = Part(max(part.start - below, 0), max(part.stop - below, 0))
        return self.layers(x, own, real, train)


class ResNet(nn.Module):
    """Stem and stages in parts that can run alone; the layers of all stages count as one row."""

    config: ResNetConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the stem and the stages."""
        c, dtype = self.config, self.dtype
        stem = partial(ConvolutionNorm, c, dtype, c.embedding_size, 7, 2, c.hidden_act)
        stages = partial(Layers, partial(_make_stage, c, dtype), len(c.depths))
        self.embedder = Nested(stem, "embedder")
        self.encoder = Nested(stages, "stages")

    @property
    def num_layers(self) -> int:
        """Layers of all stages."""
        return sum(self.config.depths)

    def example_batch(self) -> Batch:
        """One image, of any size."""
        return example_image(32, self.config.num_channels)

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """One: there is no dropout that would want more."""
        return positions_in_image(1, batch)

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b h w d"]:
        """The stem: a strided convolution of `pixel_values` and a strided maximum."""
        images = images_of(batch, self.config.num_channels)
        x = self.embedder(images, real_rows(batch), noise_ids is not None)
        padding: Any = ((1, 1), (1, 1))  # which flax's own annotation leaves out
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)

    def run_layers(
        self, x: Float[Array, "b h w i"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b k l o"]:
        """The output of the last layer of a part."""
        stages, train = Part(0, len(self.config.depths)), noise_ids is not None
        return self.encoder(x, stages, part, real_rows(batch), train)


class ImageHead(nn.Module):
    """One linear layer on the mean over all places."""

    num_outputs: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w d"], batch: Batch, backbone: ResNet, noise_ids: NoiseIds
    ) -> Float[Array, "b c"]:
        """Logits of each image."""
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        pooled = jnp.mean(x.astype(dtype), axis=(1, 2))
        init = partial(_uniform, pooled.shape[-1] ** -0.5)  # as torch draws a linear layer
        linear = partial(nn.Dense, self.num_outputs, dtype=dtype, kernel_init=init, bias_init=init)
        return Nested(linear, "1", name="classifier")(pooled)


def _uniform(bound: float, key: PRNGKey, shape: tuple[int, ...], dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _make_layer(config: ResNetConfig, dtype: Any, features: int, stride: int, name: str) -> Layer:
    return Layer(config, dtype, features, stride if name == "0" else 1, name=name)


def _make_stage(config: ResNetConfig, dtype: Any, name: str) -> Stage:
    return Stage(config, dtype, int(name), name=name)


def _image(config: ResNetConfig, num_outputs: int, dtype: Any) -> ImageHead:
    del config
    return ImageHead(num_outputs, dtype)


NAMES = Names(
    layers=r"(?:^|/)stages/(\d+)/layers/(\d+)/",
    below=r"(?:^|/)embedder/",
    norms=r"(?:^|/)normalization/(?:scale|bias)$",
    statistics=r"(?:^|/)normalization/(?:mean|var)$",
)

SHARDING_RULES = ((r"convolution/kernel$", P(None, None, None, "fsdp")),)

RESNET = Family(
    model_type="resnet",
    prefix="resnet",
    backbone=ResNet,
    heads={"image": Head("ResNetForImageClassification", _image, ("classifier/1",))},
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"normalization\.num_batches_tracked$",
    sharding_rules=SHARDING_RULES,
)
