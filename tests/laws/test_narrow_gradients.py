"""The gradient in bfloat16, as an accelerator's program computes it, beside that of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest

from jaxtune.core.device import Device
from jaxtune.core.types import weighted_mean
from jaxtune.models import attention, own_output
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.families.bert import BERT
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.fused_call import Lowering
from jaxtune.models.registry import init_params, make_apply

CONFIG = BertConfig(
    vocab_size=1200, hidden_size=128, num_attention_heads=4, intermediate_size=512,
    num_hidden_layers=4, max_position_embeddings=64,
)  # fmt: skip
FLOAT32 = arithmetic(jnp.float32, Device("cpu"))


def model(kind):
    return BERT.make_module("sequence", CONFIG, 3, kind)


@pytest.fixture(scope="module")
def params():
    found = jax.jit(lambda: init_params(model(FLOAT32), jax.random.key(0)))()
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(found))))
    return jax.tree.map(lambda x: x + 0.02 * jax.random.normal(next(keys), x.shape), found)


def gradient(kind, params):
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 65, (8, 1))
    batch = {
        "input_ids": jnp.asarray(rng.integers(0, CONFIG.vocab_size, (8, 64))),
        "attention_mask": jnp.asarray(np.arange(64) < lengths, jnp.int32),
        "example_ids": jnp.arange(8),
    }
    labels, apply_fn = jnp.asarray(rng.integers(0, 3, 8)), make_apply(model(kind))

    def loss(params):
        logits = apply_fn(params, batch, key=jax.random.key(1), train=True)
        right = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -weighted_mean(right, jnp.ones(right.shape)).value

    return jax.jit(jax.grad(loss))(params)


@pytest.mark.parametrize("kind", mark_rest(("gpu", "fused", "tpu"), ("gpu",)))
def test_it_is_near_that_of_float32_in_every_leaf(kind, params, monkeypatch):
    for module in (attention, own_output):  # what a GPU compiles is interpreted
        monkeypatch.setattr(module, "lowering_for", lambda _: Lowering("triton", True))
    device = Device("tpu") if kind == "tpu" else Device("gpu", 9.0)
    wanted = gradient(FLOAT32, params)
    found = gradient(
        arithmetic(jnp.bfloat16, device, "fused" if kind == "fused" else "auto"), params
    )
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    sizes = [(float(jnp.sum((x - y) ** 2)), float(jnp.sum(y**2))) for x, y in pairs]
    wrong, right = (sum(column) for column in zip(*sizes, strict=True))
    for off, size in sizes:
        assert off <= 0.05**2 * size + 1e-9 * right  # of keys' biases it is 0
    assert wrong <= 0.01**2 * right  # 0.0083 with each operation's own gradient, 0.0079 with these
