"""Every family and head against transformers on torch (tests/golden/make_families.py)."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from safetensors.numpy import load_file
from torch_models import head_of

from jaxtune.core import paths
from jaxtune.export.model_folder import export_model
from jaxtune.models import convert
from jaxtune.models.pretrained import load_pretrained
from jaxtune.tasks.registry import TASKS

ROOT = Path(__file__).parents[1] / "golden" / "families"
CASES = sorted(path.name for path in ROOT.iterdir())
ONE_EACH = {case.rpartition("-")[0]: case for case in CASES}.values()  # of each family
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")


def test_the_guide_shows_a_family_as_it_is():
    root = Path(__file__).parents[2]
    text = (root / "docs" / "extending" / "family.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    own = root / "jaxtune" / "models" / "families" / "electra.py"
    assert code == own.read_text(encoding="utf-8")


def load_from(folder, case):
    head = head_of(case)
    return load_pretrained(folder, head=head, num_outputs=2 if head == "span" else None)


@functools.cache
def load(case):
    return load_from(ROOT / case, case), load_file(ROOT / case / "reference.safetensors")


def batch_of(reference):
    batch = {name: reference[name] for name in INPUTS if name in reference}
    if batch.get("input_ids", np.zeros(0)).ndim == 3:  # of choices, each of which is an example
        batch = {name: value.reshape(-1, value.shape[-1]) for name, value in batch.items()}
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].transpose(0, 2, 3, 1)  # [b h w c]
    return {name: jnp.asarray(value) for name, value in batch.items()}


def expected_logits(reference):
    if "start_logits" in reference:
        return np.stack([reference["start_logits"], reference["end_logits"]], axis=-1)
    if "input_ids" in reference and reference["input_ids"].ndim == 3:
        return reference["logits"].reshape(-1, 1)
    return reference["logits"]


def loss_of(outputs, reference, head):
    """As transformers defines it for labels of -100 where nothing is scored."""

    def cross_entropy(logits, labels):
        log_probs = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return -jnp.sum(picked * (labels >= 0)) / jnp.sum(labels >= 0)

    if head == "span":
        ends = (reference["start_positions"], reference["end_positions"])
        return sum(cross_entropy(outputs[..., i], ends[i]) for i in (0, 1)) / 2
    if head == "choice":
        outputs = outputs.reshape(reference["logits"].shape)
    if head == "causal_lm":
        return cross_entropy(outputs[:, :-1], reference["labels"][:, 1:])
    return cross_entropy(outputs, reference["labels"])


def loss_fn_of(model, reference, case):
    batch = batch_of(reference)

    def loss_fn(params):
        outputs = model.apply_fn(params, batch, key=None, train=False)
        return loss_of(outputs, reference, head_of(case)), outputs

    return loss_fn


def check_outputs(loss, outputs, reference):
    wanted = expected_logits(reference)
    real = reference["attention_mask"][..., None] if outputs.ndim == 3 else 1
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs * real, wanted * real, atol=2e-5, rtol=0)
    np.testing.assert_allclose(loss, reference["loss"], rtol=1e-4)


@pytest.mark.parametrize("case", mark_rest(CASES, sorted(set(CASES) - set(ONE_EACH))[::2]))
def test_logits_and_loss(case):
    """Those of the others are looked at with their gradients."""
    model, reference = load(case)
    assert not model.report.new
    assert not model.report.unused
    check_outputs(*jax.jit(loss_fn_of(model, reference, case))(model.params), reference)


@pytest.mark.parametrize("case", mark_rest(CASES, ONE_EACH))
def test_logits_loss_and_gradients(case):
    model, reference = load(case)
    assert not model.report.new
    assert not model.report.unused
    step = jax.jit(jax.value_and_grad(loss_fn_of(model, reference, case), has_aux=True))
    (loss, outputs), grads = step(model.params)
    check_outputs(loss, outputs, reference)
    names = {name.removeprefix("grad/") for name in reference if name.startswith("grad/")}
    leaves = paths.flatten(grads)
    assert names <= {convert.torch_name(leaf) for leaf in leaves}
    largest = max(np.abs(reference[f"grad/{name}"]).max() for name in names)
    for leaf, value in leaves.items():
        name = convert.torch_name(leaf)
        found = convert.to_file(leaf, np.asarray(value))
        if name not in names:  # torch takes no gradient of statistics, nor of what has no part
            continue
        ours = reference[f"grad/{name}"]
        # that of a key's bias, or of a bias before a softmax over tokens, is 0 but for rounding
        scale = max(np.abs(ours).max(), 1e-3 * largest, 2e-3)
        assert np.abs(found - ours).max() <= 1e-4 * scale, leaf


@pytest.mark.parametrize("case", mark_rest(CASES, ONE_EACH))
def test_layers_run_in_parts(case):
    model, reference = load(case)
    batch, variables = batch_of(reference), {"params": model.params}

    @jax.jit
    def parts(variables):
        states = model.module.apply(variables, batch, method="hidden_states")
        count = len(states) - 1
        assert count >= 2
        return (
            (
                model.module.apply(variables, states[1], batch, 1, count, method="run_layers"),
                model.module.apply(variables, states[-1], batch, method="head"),
            ),
            (states[-1], model.module.apply(variables, batch)),
        )

    for found, wanted in zip(*parts(variables), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("case", mark_rest(CASES, ONE_EACH))
def test_a_base_checkpoint_lacks_only_the_head(case, tmp_path):
    """As `AutoModel.save_pretrained` writes it: no head, and no prefix."""
    from safetensors.numpy import save_file

    model, _ = load(case)
    shutil.copytree(ROOT / case, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    prefix = f"{model.design.source.family.prefix}."
    tensors = {
        name.removeprefix(prefix): value
        for name, value in load_file(file).items()
        if name.startswith(prefix)
    }
    save_file(tensors, file)
    head = head_of(case)
    base = load_pretrained(
        tmp_path / "base",
        head=head,
        class_names=model.class_names or None,
        num_outputs=2 if head == "span" else None,
        key=jax.random.key(0),
    )
    assert {part.partition("/")[0] for part in base.report.new} <= {
        part.partition("/")[0] for part in model.design.head.modules
    }
    before, after = paths.flatten(model.params), paths.flatten(base.params)
    for leaf, value in before.items():
        if not leaf.startswith(tuple(f"{part}/" for part in base.report.new)):
            np.testing.assert_array_equal(value, after[leaf])


@pytest.mark.parametrize("case", CASES)
def test_an_export_has_the_same_tensors_and_says_the_same(case, tmp_path):
    """Those of the file, with nothing tied written twice; and it loads as what it was."""
    model, _ = load(case)
    task = next(task for task in TASKS.values() if task.head == head_of(case))
    export_model(tmp_path / "model", model, model.params, None, task, {})
    before, after = (
        load_file(folder / "model.safetensors") for folder in (ROOT / case, tmp_path / "model")
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype, name
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    old, new = (
        json.loads((folder / "config.json").read_text())
        for folder in (ROOT / case, tmp_path / "model")
    )
    assert new["architectures"] == old["architectures"]
    assert new.get("id2label") == old.get("id2label")
    again = load_from(tmp_path / "model", case)
    assert again.class_names == model.class_names
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


@pytest.mark.parametrize(
    "case",
    ["bert-token", "roberta-masked_lm", "gpt2-odd", "vit-image", "resnet-image", "convnext-image"],
)
def test_flax_files_load_as_the_torch_ones_do(case, tmp_path):
    """As transformers' own converter wrote them: GPT-2's Conv1D transposed, statistics apart."""
    from flax.serialization import msgpack_serialize

    model, _ = load(case)
    flat = {
        leaf: convert.to_file(leaf, np.asarray(value), "flax")
        for leaf, value in paths.flatten(model.params).items()
    }
    is_statistic = {leaf: leaf.endswith(("/mean", "/var")) for leaf in flat}
    parts = [
        paths.unflatten({leaf: v for leaf, v in flat.items() if is_statistic[leaf] == wanted})
        for wanted in (False, True)
    ]
    tree = {"params": parts[0], "batch_stats": parts[1]} if parts[1] else parts[0]
    folder = tmp_path / "flax"
    folder.mkdir()
    shutil.copy(ROOT / case / "config.json", folder)
    (folder / "flax_model.msgpack").write_bytes(msgpack_serialize(tree))
    again = load_from(folder, case)
    assert not again.report.new
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
