"""Families that load as another one, those that are refused, and models of published sizes."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from cover import mark_rest

from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.models.registry import FAMILIES, make_apply, parameter_shapes
from jaxtune.models.source import read_source

ROOT = Path(__file__).parents[1] / "golden" / "families"


@pytest.mark.parametrize("case", ["modernbert-mmbert", "modernbert-ettin"])
def test_mmbert_and_ettin_are_modernberts_with_one_theta(case):
    """Their logits and gradients are compared with transformers in test_families.py."""
    found = read_source(ROOT / case)
    assert found.family.model_type == "modernbert"
    assert found.config.global_rope_theta == found.config.local_rope_theta == 160000
    assert found.config.classifier_pooling == "mean"
    assert "rope_parameters" not in found.hf_config  # as published, in the words of transformers 4


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("eurobert", "its layers are a decoder's"),
        ("nomic_bert", "rotary positions and gates"),
        ("dinov3_vit", "rotary positions"),
        ("convnextv2", "a response normalisation"),
    ],
)
def test_near_families_are_refused_by_name(model_type, reason, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UserError) as error:
        read_source(tmp_path)
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'config.json'}: model_type is {model_type!r}, which")
    assert reason in told
    assert "ModernBERT" in told


SIZES = {
    "dinov2 small": ("dinov2", {"hidden_size": 384, "num_attention_heads": 6}, 22.1e6),
    "dinov2 base": ("dinov2", {}, 86.6e6),
    "dinov2 large": (
        "dinov2",
        {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24},
        304.4e6,
    ),
    "dinov2 giant": (
        "dinov2",
        {
            **{"hidden_size": 1536, "num_attention_heads": 24, "num_hidden_layers": 40},
            "use_swiglu_ffn": True,
        },
        1136.5e6,
    ),
    "dinov2 base with registers": ("dinov2_with_registers", {"patch_size": 14}, 86.6e6),
    "convnext tiny": ("convnext", {}, 28.6e6),
    "convnext base": (
        "convnext",
        {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]},
        88.6e6,
    ),
    "convnext large": (
        "convnext",
        {"hidden_sizes": [192, 384, 768, 1536], "depths": [3, 3, 27, 3]},
        197.8e6,
    ),
}
"""Family, what its config.json says beside the defaults, and parameters as they are published."""


@pytest.mark.parametrize(
    "name", mark_rest(SIZES, ("dinov2 base", "dinov2 base with registers", "convnext tiny"))
)
def test_published_sizes_are_traced_on_the_images_that_their_processors_make(name):
    """224 pixels, where DINOv2's positions are for 518."""
    family, fields, count = SIZES[name]
    part = FAMILIES[family]
    if family != "convnext":
        fields = {"image_size": 518, **fields}
    config = part.config_from_hf({"model_type": family, **fields}, "config.json")
    module = part.make_module("image", config, 1000, jnp.float32)
    shapes = parameter_shapes(module)
    head = trees.count(shapes["classifier"])
    # With ImageNet's head for ConvNeXt; DINOv2 is counted without one.
    total = trees.count(shapes) - (0 if family == "convnext" else head)
    assert total == pytest.approx(count, rel=0.01)
    batch = {"pixel_values": jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)}

    def loss(params, batch):
        return make_apply(module)(params, batch, key=jax.random.key(0), train=True).sum()

    grads = jax.eval_shape(jax.grad(loss), shapes, batch)
    assert jax.tree.map(lambda x: x.shape, grads) == jax.tree.map(lambda x: x.shape, shapes)
    assert dataclasses.is_dataclass(config)
