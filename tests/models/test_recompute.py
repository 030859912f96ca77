"""A model whose layers are computed again in the backward pass is the same model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from torch_models import IMAGES

from jaxtune.core import paths
from jaxtune.core.types import WithStatistics
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.families.bert import BERT, BertConfig
from jaxtune.models.pretrained import load_weights
from jaxtune.models.recompute import make_recomputing_apply
from jaxtune.models.registry import FAMILIES, init_params, make_apply
from jaxtune.models.source import read_source
from jaxtune.tuning import injection
from jaxtune.tuning.lora import Lora

KEY = jax.random.key(3)


def load(folder, family):
    head = "sequence" if "sequence" in FAMILIES[family].heads else "image"
    source = read_source(folder)
    design = make_design(source, head, choose_outputs(head, source.hf_config, ("a", "b", "c")))
    return load_weights(design, key=jax.random.key(0), from_scratch=True)


def batch_of(model):
    rng = np.random.default_rng(0)
    if model.design.head_name == "image":
        shape = (4, *model.module.example_batch()["pixel_values"].shape[1:])
        images = rng.normal(size=shape).astype(np.float32)
        return {"pixel_values": images, "weight": np.array([1, 1, 1, 0], np.float32)}
    shape = (4, 7)
    batch = {name: np.ones(shape, np.int32) for name in ("input_ids", "attention_mask")}
    batch["input_ids"] = rng.integers(5, 20, shape).astype(np.int32)
    batch["attention_mask"][1, 4:] = 0
    return batch | {"token_type_ids": np.zeros(shape, np.int32)}


def outputs_and_gradients(apply_fn, params, batch, train=True):
    def loss(params):
        outputs = apply_fn(params, batch, key=KEY if train else None, train=train)
        logits = outputs.outputs if isinstance(outputs, WithStatistics) else outputs
        return jnp.sum(logits**2), outputs

    (_, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return outputs, grads


def assert_same(found, expected):
    (outputs, grads), (wanted, wanted_grads) = found, expected
    assert jax.tree.structure(outputs) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(outputs), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted_grads))
    flat, wanted_flat = paths.flatten(grads), paths.flatten(wanted_grads)
    assert flat.keys() == wanted_flat.keys()
    for name, grad in flat.items():
        np.testing.assert_allclose(grad, wanted_flat[name], atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("family", mark_rest(FAMILIES, ("resnet",)))
def test_outputs_gradients_dropout_and_statistics_are_the_same(tiny_families, family):
    model = load(tiny_families[family], family)
    again, batch = make_recomputing_apply(model.module), batch_of(model)
    found = outputs_and_gradients(again, model.params, batch)
    assert_same(found, outputs_and_gradients(model.apply_fn, model.params, batch))
    assert isinstance(found[0], WithStatistics) == (family == "resnet")
    calm = outputs_and_gradients(again, model.params, batch, train=False)
    assert_same(calm, outputs_and_gradients(model.apply_fn, model.params, batch, train=False))
    if family not in (*IMAGES, "modernbert"):  # their files say no dropout
        assert not np.allclose(calm[0], found[0])


def test_adapters_act_on_it(tiny_families):
    model = load(tiny_families["bert"], "bert")
    strategy = Lora(rank=2, alpha=4.0, dropout=0.5, targets=(r"(query|value)/kernel$",), head=None)
    params = injection.extend(strategy, model.params, jax.random.key(1))
    params = jax.tree.map(lambda x: x + 0.01, params)  # or the added term is 0
    applies = (make_recomputing_apply(model.module), model.apply_fn)
    found, expected = (
        outputs_and_gradients(injection.adapt(strategy, apply), params, batch_of(model))
        for apply in applies
    )
    assert_same(found, expected)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 11) and jax.default_backend() == "cpu",
    reason="XLA for the CPU undoes it there",
)
def test_less_memory_is_needed():
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    module = BERT.make_module("sequence", config, 2, jnp.float32)
    params = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    names = ("input_ids", "attention_mask")
    batch = {name: jax.ShapeDtypeStruct((8, 64), jnp.int32) for name in names}

    def compiled(apply_fn):
        def loss(params, batch):
            return jnp.sum(apply_fn(params, batch, key=KEY, train=True) ** 2)

        return jax.jit(jax.grad(loss)).lower(params, batch).compile()

    plain, again = compiled(make_apply(module)), compiled(make_recomputing_apply(module))
    sizes = [program.memory_analysis().temp_size_in_bytes for program in (again, plain)]
    assert sizes[0] < 0.5 * sizes[1]
