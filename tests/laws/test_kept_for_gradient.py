"""What a layer keeps for its gradient on an accelerator, by tracing: no card and no plugin."""

import collections
import math

import jax
import jax.numpy as jnp
import pytest

from jaxtune.core.device import Device
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.families.bert import BERT
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.registry import make_apply, parameter_shapes

B, T, H, D, F = 4, 128, 2, 64, 320
SIZES = {"vocab_size": 50, "hidden_size": D, "num_attention_heads": H, "intermediate_size": F}


def kept(layers, device, attention):
    """How many arrays of each shape and dtype wait for the gradient; parameters are no less."""
    config = BertConfig(**SIZES, num_hidden_layers=layers, max_position_embeddings=T)
    kind = arithmetic(jnp.bfloat16, device, attention)
    module = BERT.make_module("sequence", config, 2, kind)
    apply_fn, params = make_apply(module), parameter_shapes(module)
    batch = {
        name: jax.ShapeDtypeStruct((B, T), jnp.int32) for name in ("input_ids", "attention_mask")
    }

    def pull(params, batch, key):
        return jax.vjp(lambda params: apply_fn(params, batch, key=key, train=True), params)[1]

    found = jax.eval_shape(pull, params, batch, jax.eval_shape(lambda: jax.random.key(0)))
    return collections.Counter((str(x.dtype), x.shape) for x in jax.tree.leaves(found))


def of_one_layer(device, attention="auto"):
    """Of a layer that computes all tokens, what has a number for each of their features at least.

    The last layer computes a few tokens, so this is what one layer more adds.
    """
    found = kept(3, device, attention) - kept(2, device, attention)
    return {key: n for key, n in found.items() if math.prod(key[1]) >= B * T * D}


@pytest.mark.parametrize(
    ("device", "attention", "pairs"),
    [
        (Device("gpu", 9.0), "auto", 1),
        (Device("gpu", 9.0), "fused", 0),
        (Device("tpu"), "auto", 1),
        (Device("tpu"), "fused", 0),
    ],
)
def test_of_all_tokens_a_layer_keeps_bfloat16_alone_and_nothing_twice_as_wide(
    device, attention, pairs
):
    found = of_one_layer(device, attention)
    assert {dtype for dtype, _ in found} == {"bfloat16"}  # so no mask of dropout either
    assert found.get(("bfloat16", (B, H, T, T)), 0) == pairs
    assert found[("bfloat16", (B, T, F))] == 1  # what is activated, not what was
    others = sum(n * math.prod(shape) for (_, shape), n in found.items())
    others -= B * T * F + pairs * B * H * T * T
    # Of d features: query, key, value; what attention gives, twice by another shape; sums and norms
    # of both halves.
    assert others <= 9 * B * T * D


def test_on_a_cpu_what_stands_between_products_is_float32():
    assert ("float32", (B, T, D)) in of_one_layer(Device("cpu"))
