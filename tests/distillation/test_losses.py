"""What is learnt from a teacher, against transformers on torch, and float64 numpy."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import log_softmax

from jaxtune.core import paths
from jaxtune.core.types import Mean
from jaxtune.models import convert
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.kept_layers import keep_layers
from jaxtune.models.observed import make_observed_apply
from jaxtune.models.pretrained import load_pretrained, load_weights
from jaxtune.models.source import read_source
from jaxtune.training import distillation as d
from jaxtune.training.losses import cross_entropy

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDER = GOLDEN / "families" / "bert-sequence"
WEIGHT = np.array([1, 0, 1, 1], np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def logits(shape, seed):
    return rng(seed).normal(size=shape).astype(np.float32) * 3


def kl64(p_logits, q_logits, temperature):
    p, q = (log_softmax(z.astype(np.float64) / temperature, axis=-1) for z in (p_logits, q_logits))
    return temperature**2 * (np.exp(p) * (p - q)).sum(-1)


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_of_classes(shape, temperature):
    student, teacher = logits(shape, 0), logits(shape, 1)
    weight = np.broadcast_to(WEIGHT.reshape(4, *[1] * (len(shape) - 2)), shape[:-1])
    batch = {"teacher_outputs": teacher, "weight": weight}
    found = d.make_class_kl(temperature)(student, batch)
    assert float(found.weight) == weight.sum()
    wanted = (kl64(teacher, student, temperature) * weight).sum()
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)


def test_kl_of_classes_that_apply_or_not():
    student, teacher = logits((4, 3), 0), logits((4, 3), 1)
    found = d.make_binary_kl(2.0)(student, {"teacher_outputs": teacher, "weight": WEIGHT})
    pairs = [np.stack([z, np.zeros_like(z)], -1) for z in (teacher, student)]
    wanted = (kl64(*pairs, 2.0).mean(-1) * WEIGHT).sum()
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)


def test_the_error_of_numbers_has_no_temperature():
    student, teacher = logits((4, 2), 0), logits((4, 2), 1)
    found = d.make_output_error(7.0)(student, {"teacher_outputs": teacher, "weight": WEIGHT})
    wanted = (((student.astype(np.float64) - teacher) ** 2).mean(-1) * WEIGHT).sum()
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)


def test_kl_of_spans_is_over_the_tokens_of_an_example_padded_and_packed():
    """Three examples of 5, 3 and 2 tokens; what lies beside them counts for nothing."""
    sizes = (5, 3, 2)
    own = [(logits((n, 2), n), logits((n, 2), n + 9)) for n in sizes]
    wanted = sum(kl64(teacher.T, student.T, 2.0).mean() for student, teacher in own)
    loss_fn = d.make_span_kl(2.0)

    student, teacher = logits((3, 6, 2), 1), logits((3, 6, 2), 2)
    mask = np.zeros((3, 6), np.int32)
    for row, (one, other) in enumerate(own):
        student[row, : len(one)], teacher[row, : len(one)] = one, other
        mask[row, : len(one)] = 1
    batch = {"attention_mask": mask, "weight": np.ones(3, np.float32), "teacher_outputs": teacher}
    found = loss_fn(student, batch)
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)
    assert float(found.weight) == 3

    student, teacher = logits((2, 7, 2), 1), logits((2, 7, 2), 2)
    segments, firsts = np.zeros((2, 7), np.int32), np.zeros((2, 2), np.int32)
    weight = np.array([[1, 1], [1, 0]], np.float32)
    for (row, slot, start), (one, other) in zip(
        [(0, 0, 0), (1, 0, 0), (0, 1, 5)], own, strict=True
    ):
        span = slice(start, start + len(one))
        student[row, span], teacher[row, span] = one, other
        segments[row, span], firsts[row, slot] = slot + 1, start
    batch = {"segment_ids": segments, "first_tokens": firsts, "weight": weight}
    packed = loss_fn(student, batch | {"teacher_outputs": teacher})
    assert float(packed.total) == pytest.approx(wanted, rel=1e-5)
    assert float(packed.weight) == 3
    gradient = jax.grad(lambda x: loss_fn(x, batch | {"teacher_outputs": teacher}).total)(student)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[1, 3:].any()


def test_states_weigh_by_their_shares():
    states = [logits((2, 3, 4), i) for i in (0, 1)]
    wanted = logits((2, 3, 2, 4), 2)
    shares = np.array([[0.5, 0.5, 0], [0.2, 0.3, 0.5]], np.float32)
    found = d.state_error(
        tuple(map(jnp.asarray, states)), {"teacher_states": wanted, "state_shares": shares}
    )
    errors = [
        ((x.astype(np.float64) - wanted[:, :, i]) ** 2).mean(-1) for i, x in enumerate(states)
    ]
    assert float(found) == pytest.approx((shares * sum(errors) / 2).sum(), rel=1e-5)


def test_the_parts_add_up_with_one_weight():
    student = logits((4, 3), 0)
    batch = {
        "labels": np.array([0, 1, 2, 0]),
        "weight": WEIGHT,
        "teacher_outputs": logits((4, 3), 1),
    }
    soft = d.make_class_kl(2.0)
    found = d.make_distillation_loss(cross_entropy, soft, 0.3)(student, batch)
    parts = [fn(student, batch).total for fn in (cross_entropy, soft)]
    assert float(found.total) == pytest.approx(0.7 * float(parts[0]) + 0.3 * float(parts[1]))
    assert float(found.weight) == 3
    alone = d.make_distillation_loss(cross_entropy, soft, 0.0)(student, batch)
    assert isinstance(alone, Mean)
    assert float(alone.total) == float(parts[0])


def test_loss_and_gradients_are_those_of_torch():
    """A student of layers 0 and 2 of its teacher, labels, softened outputs and hidden states."""
    golden = load_file(GOLDEN / "distillation.safetensors")
    reference = load_file(FOLDER / "reference.safetensors")
    names = ("input_ids", "attention_mask", "token_type_ids")
    batch = {name: jnp.asarray(reference[name]) for name in names if name in reference}
    teacher = load_pretrained(FOLDER)
    observe = make_observed_apply(teacher.module, 0, (2, 3))
    outputs, states = observe(teacher.params, batch, key=None, train=False)
    np.testing.assert_allclose(outputs, golden["teacher_logits"], atol=2e-5)

    mask = reference["attention_mask"]
    batch |= {"labels": jnp.asarray(reference["labels"]), "weight": jnp.ones(len(mask))}
    batch |= {"teacher_outputs": outputs, "teacher_states": jnp.stack(states, axis=2)}
    batch["state_shares"] = jnp.asarray(mask / mask.sum(1, keepdims=True), jnp.float32)

    source = keep_layers(read_source(FOLDER), ("every 2",))
    assert source.layers == (0, 2)
    student = load_weights(
        make_design(source, "sequence", choose_outputs("sequence", source.hf_config))
    )
    assert not student.report.new
    assert not student.report.unused
    apply_fn = make_observed_apply(student.module, 0, (1, 2))
    loss_fn = d.make_distillation_loss(cross_entropy, d.make_class_kl(3.0), 0.7, 0.5)

    def loss(params):
        return loss_fn(apply_fn(params, batch, key=None, train=False), batch).value

    kernel = student.params["classifier"]["kernel"]
    params = {**student.params, "classifier": {**student.params["classifier"], "kernel": -kernel}}
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-4)
    flat = {convert.torch_name(leaf): (leaf, g) for leaf, g in paths.flatten(grads).items()}
    wanted = {n.removeprefix("grad/"): g for n, g in golden.items() if n.startswith("grad/")}
    assert flat.keys() == wanted.keys()
    largest = max(np.abs(g).max() for g in wanted.values())
    for name, (leaf, grad) in flat.items():
        scale = max(np.abs(wanted[name]).max(), 1e-3 * largest, 2e-3)
        found = convert.to_file(leaf, np.asarray(grad))
        assert np.abs(found - wanted[name]).max() <= 1e-4 * scale, name
