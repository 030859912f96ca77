"""BERT against transformers on torch: outputs, gradients and ten AdamW steps.

The references and the script that made them are in tests/golden.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import paths
from jaxtune.models import convert
from jaxtune.models.pretrained import load_pretrained
from jaxtune.training import losses, optimizers
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition
from jaxtune.tuning.selective import Full

TINY = ["odd", "one_type"]


def read(file):
    """The arrays of an npz by name."""
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files}


def batch_of(reference, name):
    keys = ("input_ids", "attention_mask", "token_type_ids", "labels")
    batch = {key: jnp.asarray(reference[f"{name}{key}"]) for key in keys}
    return batch | {"weight": jnp.ones(batch["labels"].shape[0])}


def with_torch_names(tree):
    return {
        convert.torch_name(leaf): convert.to_file(leaf, np.asarray(value))
        for leaf, value in paths.flatten(tree).items()
    }


def relative(found, wanted):
    """Largest difference in units of the largest wanted number."""
    return np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)


def no_dropout(model):
    """The apply function with dropout off in training too, as the references were made."""

    def apply_fn(params, batch, *, key, train):
        del key, train
        return model.apply_fn(params, batch, key=None, train=False)

    return apply_fn


def summed(loss_fn, apply_fn, batch):
    def mean_loss(params):
        return loss_fn(apply_fn(params, batch, key=None, train=False), batch).value

    return jax.jit(jax.value_and_grad(mean_loss))


@pytest.fixture(scope="module", params=TINY)
def tiny(request, golden):
    model = load_pretrained(golden / request.param)
    loss_fn = losses.cross_entropy if model.class_names else losses.squared_error
    return model, read(golden / request.param / "reference.npz"), loss_fn


@pytest.mark.parametrize("rows", ["padded", "full"])
def test_hidden_states_and_logits(tiny, rows):
    model, reference, _ = tiny
    batch = batch_of(reference, f"{rows}/")
    variables = {"params": model.params}
    states = np.stack(model.module.apply(variables, batch, method="hidden_states"))
    np.testing.assert_allclose(states, reference[f"{rows}/hidden_states"], atol=1e-5, rtol=0)
    pooled = model.module.apply(
        variables, states[-1], method=lambda m, x: m.backbone.pool(x[:, :1], None)[:, 0]
    )
    np.testing.assert_allclose(pooled, reference[f"{rows}/pooler_output"], atol=1e-5, rtol=0)
    logits = model.apply_fn(model.params, batch, key=None, train=False)
    np.testing.assert_allclose(logits, reference[f"{rows}/logits"], atol=1e-5, rtol=0)


def test_loss_and_gradient(tiny):
    model, reference, loss_fn = tiny
    loss, grads = summed(loss_fn, model.apply_fn, batch_of(reference, "padded/"))(model.params)
    assert relative(np.asarray(loss), reference["loss"]) < 1e-5
    scale = max(np.abs(reference[k]).max() for k in reference if k.startswith("grad/"))
    for name, grad in with_torch_names(grads).items():
        wanted = reference[f"grad/{name}"]
        if name.endswith("key.bias"):  # 0 but for rounding
            assert np.abs(grad).max() < 1e-6 * scale
        else:
            assert relative(grad, wanted) < 1e-5, name


def test_ten_adamw_steps(tiny):
    model, reference, loss_fn = tiny
    labels = partition.label(Full(), model.params)
    schedule = optimizers.make_schedule("linear", 1e-3, 10, 3)
    tx = optimizers.make_optimizer("adamw", schedule, partition.trainable_labels(labels))
    trainable, frozen = partition.partition(model.params, labels)
    state = init_state(trainable, tx, jax.random.key(0))
    step = jax.jit(make_train_step(no_dropout(model), loss_fn, tx))
    for i in range(10):
        batch = batch_of(reference, ("padded/", "full/")[i % 2])
        assert float(schedule(i)) == pytest.approx(reference["steps/lr"][i], rel=1e-5, abs=1e-12)
        state, info = step(state, frozen, batch)
        assert float(info.loss.value) == pytest.approx(reference["steps/loss_f64"][i], rel=1e-5)
        # Optax takes 1 - b2^t in float32, off by 1.3e-5 at first; the norm of a gradient that has
        # become small shows most of it.
        norm = reference["steps/grad_norm_f64"][i]
        assert float(info.grad_norm) == pytest.approx(norm, rel=5e-5)
    for name, value in with_torch_names(state.params).items():
        if not name.endswith("key.bias"):
            wanted = reference[f"final_f64/{name}"]
            np.testing.assert_allclose(value, wanted, atol=1e-5, rtol=0, err_msg=name)


@pytest.fixture(scope="module")
def real(golden, minilm):
    """MiniLM with the reference's classifier."""
    reference = read(golden / "minilm.npz")
    model = load_pretrained(minilm, class_names=("a", "b", "c"), key=jax.random.key(0))
    head = {
        "kernel": jnp.asarray(reference["classifier.weight"].T),
        "bias": jnp.asarray(reference["classifier.bias"]),
    }
    return model, model.params | {"classifier": head}, reference


def test_minilm_outputs(real):
    model, params, reference = real
    batch = batch_of(reference, "")
    states = model.module.apply({"params": params}, batch, method="hidden_states")
    # A few components of MiniLM's layers are near 10. There float32 itself, torch's too, is more
    # than 1e-5 away from float64 (see the next test), so the largest difference is measured in
    # units of the largest component, and the typical one absolutely.
    for layer in (0, 3, 6):
        wanted = reference[f"hidden/{layer}"]
        assert relative(states[layer][:3], wanted) < 1e-5
        assert np.sqrt(np.mean((states[layer][:3] - wanted) ** 2)) < 2e-6
    logits = model.apply_fn(params, batch, key=None, train=False)
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-5, rtol=0)
    mask = batch["attention_mask"][:, :, None]
    mean = (states[-1] * mask).sum(1) / mask.sum(1)
    mean = mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
    np.testing.assert_allclose(mean, reference["mean_pooled"], atol=1e-5, rtol=0)


def test_minilm_is_about_as_near_to_float64_as_torch_is(real):
    model, params, reference = real
    batch = batch_of(reference, "")
    states = model.module.apply({"params": params}, batch, method="hidden_states")
    with jax.enable_x64(True):
        family = model.design.source.family
        exact = family.make_module("sequence", model.config, 2, jnp.float64).apply(
            {"params": jax.tree.map(lambda x: np.asarray(x, np.float64), params)},
            batch,
            method="hidden_states",
        )
        assert exact[-1].dtype == jnp.float64
    for layer in (3, 6):
        wanted = np.asarray(exact[layer])[:3]
        errors = [
            np.abs(found - wanted) for found in (states[layer][:3], reference[f"hidden/{layer}"])
        ]
        for measure in (np.max, lambda error: np.sqrt(np.mean(error**2))):
            ours, theirs = (measure(error) for error in errors)
            assert ours < 2 * theirs


def test_minilm_gradient(real):
    model, params, reference = real
    batch = batch_of(reference, "")
    loss, grads = summed(losses.cross_entropy, model.apply_fn, batch)(params)
    assert relative(np.asarray(loss), reference["loss"]) < 1e-5
    named = with_torch_names(grads)
    for name in reference:
        if name.startswith("grad/"):
            assert relative(named[name.removeprefix("grad/")], reference[name]) < 1e-5, name
    total = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in named.values()))
    assert total == pytest.approx(reference["grad_norm"], rel=1e-5)
    for name, norm in zip(reference["grad_norm_names"], reference["grad_norms"], strict=True):
        if not name.endswith("key.bias"):
            found = np.linalg.norm(named[str(name)].astype(np.float64))
            assert found == pytest.approx(norm, rel=1e-5), name
