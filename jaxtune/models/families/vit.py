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
from jaxtyping import Array, Float, Int, UInt32

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.family import Family, Head, Names
from jaxtune.models.hf_config import check_defaults, check_heads, read_fields
from jaxtune.models.layers import (
    ACTIVATIONS,
    Dropout,
    Folder,
    SelfAttention,
    dense,
    images_of,
    layer_norm,
    pick,
    pick_names,
)
from jaxtune.models.model import (
    Encoder,
    Model,
    NormedModel,
    example_image,
    output_layer,
    positions_in_image,
)


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
    """Reads the fields of a `config.json`; absent ones have ViT-Base's values.

    Args:
      hf_config: the parsed file.
      source: its path, for messages.

    Raises:
      UserError: a field of the wrong type, fields that do not fit together, or a variant of ViT
        that is computed differently.
    """
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
        self, images: Float[Array, "b h w c"], tokens: UInt32[Array, "b t"] | None
    ) -> Float[Array, "b t d"]:
        """[b h w c] -> [b t d]; rows and columns that fill no whole patch are left out."""
        c, init = self.config, nn.initializers.normal(self.config.initializer_range)
        side = (c.patch_size, c.patch_size)
        project = partial(nn.Conv, c.hidden_size, side, side, "VALID", dtype=self.dtype)
        patches = Folder(partial(project, kernel_init=init), "projection", name="patch_embeddings")(
            images
        )
        patches = patches.reshape(len(images), -1, c.hidden_size)  # [b y x d] -> [b t-1 d]
        cls_token = self.param("cls_token", init, (1, 1, c.hidden_size))
        first = jnp.broadcast_to(cls_token, (len(images), 1, c.hidden_size))
        shape = (1, 1 + patches.shape[1], c.hidden_size)
        positions = self.param("position_embeddings", init, shape)
        x = jnp.concatenate([first, patches], axis=1) + positions
        return Dropout(c.hidden_dropout_prob)(x, tokens)


class Attention(nn.Module):
    """Self-attention of all tokens."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b n d]."""
        c = self.config
        attended = SelfAttention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            use_bias=c.qkv_bias,
            name="attention",
        )(x, jnp.zeros((1, 1, 1, 1)), tokens, places=places)
        asking = pick_names(tokens, places)
        return _dense(c, c.hidden_size, self.dtype, "output")(attended, asking)


class Layer(nn.Module):
    """`x + attention(norm(x))`, then `x + feedforward(norm(x))`."""

    config: ViTConfig
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c = self.config
        dropout = Dropout(c.hidden_dropout_prob)
        y = layer_norm(c.layer_norm_eps, self.dtype, "layernorm_before")(x)
        attended = Attention(c, self.dtype, name="attention")(y, tokens, places)
        tokens = pick_names(tokens, places)
        x = pick(x, places) + dropout(attended, tokens)
        y = layer_norm(c.layer_norm_eps, self.dtype, "layernorm_after")(x)
        y = _dense(c, c.intermediate_size, self.dtype, "intermediate")(y, tokens)
        y = _dense(c, c.hidden_size, self.dtype, "output")(ACTIVATIONS[c.hidden_act](y), tokens)
        return x + dropout(y, tokens)


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

    def embed(self, batch: Batch, tokens: UInt32[Array, "b t"] | None) -> Float[Array, "b t d"]:
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
        return self.embeddings(images, tokens)

    def run_layers(
        self,
        x: Float[Array, "b t d"],
        batch: Batch,
        start: int,
        stop: int,
        tokens: UInt32[Array, "b t"] | None,
        places: Int[Array, "b n"] | None = None,
    ) -> Float[Array, "b n d"]:
        """The output of layer `stop - 1`, of all tokens or of those at some places."""
        del batch
        return self.encoder(x, start, stop, tokens, places=places)

    def normalise(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """What the head reads, from the output of the last layer."""
        return self.layernorm(x)


class ImageHead(nn.Module):
    """One linear layer on the class token."""

    config: ViTConfig
    num_outputs: int
    dtype: Any
    reads: str = "first"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        batch: Batch,
        backbone: ViT,
        tokens: UInt32[Array, "b n"] | None,
    ) -> Float[Array, "b n c"]:
        """Logits of each image."""
        del batch, backbone
        last = output_layer(self.num_outputs, self.config.initializer_range, self.dtype)
        return last(x, tokens)


def _dense(config: ViTConfig, features: int, dtype: Any, folder: str) -> Folder:
    make = partial(dense, features, config.initializer_range, dtype)
    return Folder(make, "dense", name=folder)


def _image(config: ViTConfig, num_outputs: int, dtype: Any) -> Model:
    head = ImageHead(config, num_outputs, dtype)
    example = partial(example_image, config.image_size, config.num_channels)
    positions = partial(positions_in_image, 1 + (config.image_size // config.patch_size) ** 2)
    return NormedModel(partial(ViT, config, dtype), "vit", head, example, positions)


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)layernorm(?:_before|_after)?/",
    queries_values=(r"attention/attention/(?:query|value)/kernel$",),
    keys_values=(r"attention/attention/(?:key|value)/kernel$",),
    widened=(r"/\d+/output/dense/kernel$",),
    attention_outputs=(r"attention/output/dense/kernel$",),
    feedforward_outputs=(r"/\d+/output/dense/kernel$",),
    keys=(r"attention/attention/key/kernel$",),
)

PARTITION = (
    (r"/attention/(?:query|key|value)/kernel$|intermediate/dense/kernel$", P("fsdp", "tensor")),
    (r"/attention/(?:query|key|value)/bias$|intermediate/dense/bias$", P("tensor")),
    (r"/attention/(?:query|key|value)/kernel_lora_b$", P(None, "tensor")),
    (r"/\d+/(?:attention/)?output/dense/kernel$", P("tensor", "fsdp")),
    (r"projection/kernel$", P(None, None, None, "fsdp")),
    (r"position_embeddings$", P(None, None, "fsdp")),
)

VIT = Family(
    model_type="vit",
    backbone="vit",
    heads={"image": Head("ViTForImageClassification", _image, ("classifier",))},
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=r"(?!)",  # none
    partition=PARTITION,
)
