"""ViT: a pre-norm encoder of the patches of an image.

Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.attention import SelfAttention, no_bias
from jaxtune.models.family import Family, Head, Matrices, Names, layer_rules
from jaxtune.models.heads import LinearHead
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
from jaxtune.models.inputs import example_image, images_of, positions_in_image
from jaxtune.models.layers import Dropout, Init, Nested, NoiseIds, dense, layer_norm
from jaxtune.models.model import Encoder, Part
from jaxtune.models.places import Places, pick, pick_noise_ids


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """The fields of a Hugging Face ViT `config.json` that shape the computation."""

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    qkv_bias: bool = True


def config_from_hf(hf_config: Mapping[str, Any], source: str) -> ViTConfig:
    """See `Family`."""
    config = read_fields(ViTConfig, hf_config, source, activation="hidden_act")
    check_heads(config.hidden_size, config.num_attention_heads, source)
    head_dim = config.hidden_size // config.num_attention_heads
    check_defaults(hf_config, source, {"head_dim": head_dim}, "ViT")
    if config.patch_size > config.image_size:
        raise UserError(
            f"{source}: patch_size {config.patch_size} is larger than image_size"
            f" {config.image_size}."
        )
    return config


class Embeddings(nn.Module):
    """Linear patches behind a class token, plus learned positions."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], noise_ids: NoiseIds
    ) -> Float[Array, "b t d"]:
        """[b h w c] -> [b t d]; rows and columns that fill no whole patch are left out."""
        c, init = self.config, nn.initializers.normal(self.config.initializer_range)
        side, b = (c.patch_size, c.patch_size), images.shape[0]
        project = partial(nn.Conv, c.hidden_size, side, side, "VALID", dtype=self.dtype)
        embed = Nested(partial(project, kernel_init=init), "projection", name="patch_embeddings")
        patches = embed(images).reshape(b, -1, c.hidden_size)  # [b y x d] -> [b t-1 d]
        cls_token = self.param("cls_token", init, (1, 1, c.hidden_size))
        first = jnp.broadcast_to(cls_token, (b, 1, c.hidden_size))
        shape = (1, 1 + patches.shape[1], c.hidden_size)
        positions = self.param("position_embeddings", init, shape)
        x = jnp.concatenate([first, patches], axis=1) + positions
        return Dropout(c.hidden_dropout_prob)(x, noise_ids)


class Attention(nn.Module):
    """Self-attention of all tokens.

    Attributes:
      use_bias: of queries, keys and values.
    """

    num_heads: int
    dropout_rate: float
    kernel_init: Init
    dtype: Any
    use_bias: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], noise_ids: NoiseIds, places: Places
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b n d]."""
        (b, t, d), init = x.shape, self.kernel_init
        attention = SelfAttention(
            *(self.num_heads, self.dropout_rate, init, self.dtype),
            use_bias=self.use_bias,
            name="attention",
        )
        attended = attention(x, no_bias(b, t, self.dtype), noise_ids, places)
        make = partial(dense, d, init, self.dtype)
        return Nested(make, "dense", name="output")(attended, pick_noise_ids(noise_ids, places))


class Layer(nn.Module):
    """`x + attention(norm(x))`, then `x + feedforward(norm(x))`."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        dropout = Dropout(c.hidden_dropout_prob)
        y = layer_norm(c.layer_norm_eps, self.dtype, "layernorm_before")(x)
        attention = Attention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            c.qkv_bias,
            name="attention",
        )
        attended = attention(y, noise_ids, places)
        noise_ids = pick_noise_ids(noise_ids, places)
        x = pick(x, places) + dropout(attended, noise_ids)
        y = layer_norm(c.layer_norm_eps, self.dtype, "layernorm_after")(x)
        y = _dense(c, c.intermediate_size, self.dtype, "intermediate")(y, noise_ids)
        y = _dense(c, c.hidden_size, self.dtype, "output")(ACTIVATIONS[c.hidden_act](y), noise_ids)
        return x + dropout(y, noise_ids)


class ViT(nn.Module):
    """The encoder in parts that can run alone."""

    config: ViTConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the parts."""
        c = self.config
        self.embeddings = Embeddings(c, self.dtype)
        self.encoder = Encoder(partial(Layer, c, self.dtype), self.num_layers)
        self.layernorm = layer_norm(c.layer_norm_eps, self.dtype, None)

    @property
    def num_layers(self) -> int:
        """Layers of the encoder."""
        return self.config.num_hidden_layers

    def example_batch(self) -> Batch:
        """One image."""
        return example_image(self.config.image_size, self.config.num_channels)

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """Of the class token and the patches."""
        side = self.config.image_size // self.config.patch_size
        return positions_in_image(1 + side**2, batch)

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0, from `pixel_values` of the size that the positions are for.

        Raises:
          UserError: images of another size.
        """
        images, side = images_of(batch, self.config.num_channels), self.config.image_size
        if images.shape[1:3] != (side, side):
            raise UserError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels do not fit this ViT,"
                f" whose positions are for {side} x {side}: resize them to image_size."
            )
        return self.embeddings(images, noise_ids)

    def run_layers(
        self, x: Float[Array, "b t d"], batch: Batch, part: Part, noise_ids: NoiseIds
    ) -> Float[Array, "b n d"]:
        """The output of the last layer of a part."""
        return self.encoder(x, part, noise_ids)

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What the head reads, from the output of the last layer."""
        return self.layernorm(x)


def _dense(config: ViTConfig, features: int, dtype: Any, holder: str) -> Nested:
    make = partial(dense, features, config.initializer_range, dtype)
    return Nested(make, "dense", name=holder)


def _image(config: ViTConfig, num_outputs: int, dtype: Any) -> LinearHead:
    """Of the class token."""
    return LinearHead(num_outputs, config.initializer_range, dtype, reads="first")


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)layernorm(?:_before|_after)?/",
    matrices=Matrices(
        queries=r"attention/attention/query/kernel$",
        keys=r"attention/attention/key/kernel$",
        values=r"attention/attention/value/kernel$",
        attention_output=r"attention/output/dense/kernel$",
        feedforward_output=r"/\d+/output/dense/kernel$",
    ),
)

SHARDING_RULES = (
    *layer_rules(
        "/attention/(?:query|key|value)",
        "intermediate/dense",
        r"/\d+/(?:attention/)?output/dense",
    ),
    (r"projection/kernel$", P(None, None, None, "fsdp")),
    (r"position_embeddings$", P(None, None, "fsdp")),
)

VIT = Family(
    model_type="vit",
    prefix="vit",
    backbone=ViT,
    heads={"image": Head("ViTForImageClassification", _image, ("classifier",))},
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"(?!)",  # none
    sharding_rules=SHARDING_RULES,
)
