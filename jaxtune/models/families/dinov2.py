"""DINOv2: a pre-norm encoder of patches, with scaled branches, for images of any size.

Position embeddings are resampled where images have other numbers of patches than in pretraining:
the published models have those of 518 pixels, and their processor gives 224.

Source: Oquab et al. 2024, DINOv2: Learning Robust Visual Features without Supervision; Darcet et
al. 2024, Vision Transformers Need Registers.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxtune.core.errors import UserError
from jaxtune.core.types import Batch
from jaxtune.models.activations import ACTIVATIONS
from jaxtune.models.families.dinov2_config import (
    Dinov2Config,
    config_from_hf,
    config_with_registers,
)
from jaxtune.models.families.vit import Attention
from jaxtune.models.family import Family, Head, Matrices, Names, layer_rules
from jaxtune.models.heads import output_layer
from jaxtune.models.inputs import example_image, images_of, positions_in_image
from jaxtune.models.layers import Dropout, Nested, NoiseIds, dense, layer_norm
from jaxtune.models.model import Encoder, Part
from jaxtune.models.places import Places, pick, pick_noise_ids
from jaxtune.models.resample import resample
from jaxtune.models.residual import DropPath, LayerScale
from jaxtune.parallel.collectives import split_features


class Embeddings(nn.Module):
    """Linear patches with learned positions behind a class token, and registers between them."""

    config: Dinov2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], noise_ids: NoiseIds
    ) -> Float[Array, "b t d"]:
        """[b h w c] -> [b t d]; rows and columns that fill no whole patch are left out."""
        c, init = self.config, nn.initializers.normal(self.config.initializer_range)
        side, (b, d) = (c.patch_size, c.patch_size), (images.shape[0], c.hidden_size)
        project = partial(nn.Conv, d, side, side, "VALID", dtype=self.dtype, kernel_init=init)
        x = Nested(project, "projection", name="patch_embeddings")(images)  # [b y x d]
        count = c.pretrained_side
        positions = self.param("position_embeddings", init, (1, 1 + count**2, d))
        cls_token = self.param("cls_token", init, (1, 1, d))
        first = jnp.broadcast_to(cls_token + positions[:, :1], (b, 1, d))
        grid = positions[:, 1:].reshape(count, count, d)  # [y x d]
        x = (x + resample(grid, (x.shape[1], x.shape[2]), c.taps)).reshape(b, -1, d)  # [b y*x d]
        parts = [first, x]
        if c.num_register_tokens:
            zeros = nn.initializers.zeros
            registers = self.param("register_tokens", zeros, (1, c.num_register_tokens, d))
            parts.insert(1, jnp.broadcast_to(registers, (b, *registers.shape[1:])))
        return Dropout(c.hidden_dropout_prob)(jnp.concatenate(parts, axis=1), noise_ids)


class FeedForward(nn.Module):
    """`act(x W_1) W_2`; with `use_swiglu_ffn` `(silu(u) * g) W_2` where [u; g] = x W_1.

    Source: Shazeer 2020, GLU Variants Improve Transformer, section 2.
    """

    config: Dinov2Config
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """[b t d] -> [b t f] -> [b t d]."""
        c, init = self.config, self.config.initializer_range
        if c.use_swiglu_ffn:
            both = dense(2 * c.inner_width, init, self.dtype, "weights_in")(x, noise_ids)
            inner, gate = split_features(both, 2)
            x = ACTIVATIONS["silu"](inner) * gate
            return dense(c.hidden_size, init, self.dtype, "weights_out")(x, noise_ids)
        x = ACTIVATIONS[c.hidden_act](dense(c.inner_width, init, self.dtype, "fc1")(x, noise_ids))
        return dense(c.hidden_size, init, self.dtype, "fc2")(x, noise_ids)


class Layer(nn.Module):
    """`x + l_1 * attention(norm(x))`, then `x + l_2 * feedforward(norm(x))`."""

    config: Dinov2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], noise_ids: NoiseIds, places: Places = None
    ) -> Float[Array, "b n d"]:
        """[b t d] -> [b t d], or of the tokens at some places alone."""
        c, drop = self.config, DropPath(self.config.drop_path_rate)
        scale = partial(LayerScale, c.layerscale_value)
        y = layer_norm(c.layer_norm_eps, self.dtype, "norm1")(x)
        attention = Attention(
            c.num_attention_heads,
            c.attention_probs_dropout_prob,
            c.initializer_range,
            self.dtype,
            c.qkv_bias,
            name="attention",
        )
        y = scale(name="layer_scale1")(attention(y, noise_ids, places))
        x = pick(x, places) + drop(y, noise_ids)
        y = layer_norm(c.layer_norm_eps, self.dtype, "norm2")(x)
        asking = pick_noise_ids(noise_ids, places)
        y = scale(name="layer_scale2")(FeedForward(c, self.dtype, name="mlp")(y, asking))
        return x + drop(y, noise_ids)


class Dinov2(nn.Module):
    """The encoder in parts that can run alone."""

    config: Dinov2Config
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
        """One image of one patch."""
        return example_image(self.config.patch_size, self.config.num_channels)

    def positions(self, batch: Batch) -> Int[Array, "b t"]:
        """Of the class token, the registers and the patches."""
        c, (height, width) = self.config, batch["pixel_values"].shape[1:3]
        count = (height // c.patch_size) * (width // c.patch_size)
        return positions_in_image(1 + c.num_register_tokens + count, batch)

    def embed(self, batch: Batch, noise_ids: NoiseIds) -> Float[Array, "b t d"]:
        """The input of layer 0, from `pixel_values` of any size that a patch fits into.

        Raises:
          UserError: images that are smaller.
        """
        images, side = images_of(batch, self.config.num_channels), self.config.patch_size
        if min(images.shape[1:3]) < side:
            raise UserError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels hold no patch of this"
                f" DINOv2, {side} x {side}: resize them."
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


class ImageHead(nn.Module):
    """One linear layer on the class token beside the mean over the patches."""

    config: Dinov2Config
    num_outputs: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], batch: Batch, backbone: Dinov2, noise_ids: NoiseIds
    ) -> Float[Array, "b c"]:
        """Logits of each image."""
        c, x = self.config, x.astype(jnp.promote_types(self.dtype, jnp.float32))
        patches = x[:, 1 + c.num_register_tokens :].mean(axis=1)
        x = jnp.concatenate([x[:, 0], patches], axis=-1)  # [b 2d]
        ids = None if noise_ids is None else noise_ids[:, 0]
        return output_layer(self.num_outputs, c.initializer_range, self.dtype)(x, ids)


NAMES = Names(
    layers=r"(?:^|/)layer/(\d+)/",
    below=r"(?:^|/)embeddings/",
    norms=r"(?:^|/)(?:norm[12]|layernorm)/",
    matrices=Matrices(
        queries=r"attention/attention/query/kernel$",
        keys=r"attention/attention/key/kernel$",
        values=r"attention/attention/value/kernel$",
        attention_output=r"attention/output/dense/kernel$",
        feedforward_output=r"/mlp/(?:fc2|weights_out)/kernel$",
    ),
)

SHARDING_RULES = (
    (r"/weights_in/kernel$", P("fsdp", None)),  # two matrices side by side
    *layer_rules(
        "/attention/(?:query|key|value)",
        "/mlp/fc1",
        "/(?:attention/output/dense|mlp/(?:fc2|weights_out))",
    ),
    (r"projection/kernel$", P(None, None, None, "fsdp")),
    (r"position_embeddings$", P(None, None, "fsdp")),
)

_MASK = r"embeddings[./]mask_token$"
"""A parameter of pretraining alone."""

DINOV2 = Family(
    model_type="dinov2",
    prefix="dinov2",
    backbone=Dinov2,
    heads={"image": Head("Dinov2ForImageClassification", ImageHead, ("classifier",))},
    config_from_hf=config_from_hf,
    names=NAMES,
    buffers=_MASK,
    sharding_rules=SHARDING_RULES,
    kept=_MASK,
)

DINOV2_WITH_REGISTERS = DINOV2._replace(
    model_type="dinov2_with_registers",
    prefix="dinov2_with_registers",
    heads={"image": Head("Dinov2WithRegistersForImageClassification", ImageHead, ("classifier",))},
    config_from_hf=config_with_registers,
)
