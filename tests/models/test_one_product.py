"""Query, key and value by one product, elsewhere than on a CPU; what it gives is computed here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core.device import Device
from jaxtune.core.types import weighted_mean
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.families.bert import BERT
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.registry import init_params, make_apply
from jaxtune.tuning.lora import Lora

CONFIG = BertConfig(
    vocab_size=40, hidden_size=12, num_attention_heads=3, intermediate_size=20,
    num_hidden_layers=2, max_position_embeddings=16,
)  # fmt: skip


def model(platform):
    """In float32, where nothing else follows from the device."""
    return BERT.make_module("token", CONFIG, 3, arithmetic(jnp.float32, Device(platform)))


def initial(module):
    return jax.jit(lambda: init_params(module, jax.random.key(0)))()


@pytest.fixture(scope="module")
def batch():
    ids = np.random.default_rng(0).integers(0, 40, (2, 7))
    return {"input_ids": jnp.asarray(ids), "attention_mask": jnp.ones((2, 7), jnp.int32)}


def value_and_gradient(apply_fn, params, batch):
    def loss(params):
        y = apply_fn(params, batch, key=jax.random.key(1), train=True)
        return weighted_mean(jnp.sin(y + jnp.arange(3)), jnp.ones(y.shape)).value

    return jax.jit(jax.value_and_grad(loss))(params)


def num_products(apply_fn, params, batch):
    run = jax.make_jaxpr(lambda params: apply_fn(params, batch, key=None, train=False))
    return str(run(params)).count(" dot_general[")


def test_it_gives_what_three_products_give(batch):
    plain, together = make_apply(model("cpu")), make_apply(model("gpu"))
    params = initial(model("cpu"))
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), params)
    wanted, found = (value_and_gradient(apply, params, batch) for apply in (plain, together))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, wanted)
    assert num_products(plain, params, batch) - num_products(together, params, batch) == 2 * 2


def test_a_new_model_has_the_same_parameters():
    wanted, found = (initial(model(kind)) for kind in ("cpu", "gpu"))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_matrices_with_something_beside_them_stay_apart(batch):
    strategy = Lora(rank=2, alpha=4.0, targets=("layer/1/attention/self/query/kernel",), head=None)
    params = initial(model("cpu"))
    params = strategy.extend(params, jax.random.key(3))
    params = jax.tree.map(lambda x: x + 0.1, params)
    plain, together = (strategy.adapt(make_apply(model(kind))) for kind in ("cpu", "gpu"))
    wanted, found = (value_and_gradient(apply, params, batch) for apply in (plain, together))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, wanted)
    assert num_products(plain, params, batch) - num_products(together, params, batch) == 2
