"""A head of a person's own: trained, saved, opened by its name alone, or refused in words."""

import json
import re

import numpy as np
import pytest
from cover import mark_rest
from safetensors.numpy import load_file

from jaxtune import predict
from jaxtune.core.errors import UserError
from jaxtune.export.exportable import check_exportable
from jaxtune.run import front
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.scoring import score
from jaxtune.run.train import train

MINE = """
import flax.linen as nn
import jax.numpy as jnp
from jaxtune.models.layers import Dropout


class Deep(nn.Module):
    num_outputs: int
    reads = "mean"

    @nn.compact
    def __call__(self, x, noise_ids):
        x = Dropout(0.3)(nn.tanh(nn.Dense(8)(x)), noise_ids)
        scale = self.param("scale", nn.initializers.ones, (8,))
        return nn.Dense(self.num_outputs, name="last")(x * scale)


def plain(num_outputs): return nn.Dense(num_outputs)
def two(num_outputs): return nn.Dense(num_outputs + 1)
def none(num_outputs): return num_outputs
def short(): return nn.Dense(3)
def broken(num_outputs): return nn.Sequential([nn.Dense(8), lambda x: x @ x])


class Twice(nn.Module):
    num_outputs: int

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (x.shape[-1], self.num_outputs))
        return x @ kernel * self.param("scale", nn.initializers.ones, (self.num_outputs,))


class Odd(Deep):
    reads = "middle"
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module in the working folder; its name."""
    name = "head_" + re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / f"{name}.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("short", "takes (): expected a function of (num_outputs) that gives a flax.linen.Module"),
        ("none", "gives a int: expected a flax.linen.Module from features"),
        ("two", "gives float32[1, 1, 3] for features [1, 1, 16]: expected float32[1, 1, 2]"),
        ("broken", "broken fails, head_"),
        ("Odd", "reads 'middle': expected one of first, last, mean"),
        ("Twice", "'own_head/kernel' and 'own_head/scale', which are both 'own_head.weight'"),
        ("Dep", "has no 'Dep'. Nearest: Deep"),
    ],
)
def test_a_wrong_head_is_told_before_weights_are_read(
    mine, name, word, tiny_weights, tiny_settings, monkeypatch
):
    model = tiny_weights("classification", "bert", 1)
    monkeypatch.setattr("jaxtune.run.prepare.load_weights", None)
    settings = tiny_settings("classification", "head", model, **{"model.head": f"{mine}:{name}"})
    with pytest.raises(UserError, match=re.escape(word)) as caught:
        prepare(settings, Report(quiet=True))
    assert "config.model.head" in str(caught.value)


def test_a_task_whose_outputs_are_neither_classes_nor_numbers_has_none(tiny_settings, tmp_path):
    with pytest.raises(UserError, match="expected None, as task is 'causal_lm'"):
        tiny_settings("causal_lm", "full", tmp_path, **{"model.head": "a:b"})


def by_hand(features, weights):
    """`Deep` in float64, from the tensors of a file."""
    w = {name.removeprefix("own_head."): x.astype(np.float64) for name, x in weights.items()}
    inner = np.tanh(features @ w["Dense_0.weight"].T + w["Dense_0.bias"])
    return inner * w["weight"] @ w["last.weight"].T + w["last.bias"]


@pytest.mark.parametrize("strategy", mark_rest(["head", "lora", "prefix"], ["head"]))
def test_a_saved_head_is_opened_by_its_name(
    strategy, mine, tiny_weights, tiny_settings, tiny_tasks, tmp_path
):
    model, name = tiny_weights("classification", "bert", 1), f"{mine}:Deep"
    more = {"model.head": name, "data.layout": "packed"}
    settings = tiny_settings("classification", strategy, model, **more)
    lines = Report(quiet=True)
    results = train(settings, tmp_path / "run", lines)
    folder = tmp_path / "run" / "model"
    with pytest.raises(UserError, match=re.escape(f"add --head={name}")):
        front.load(folder)
    with pytest.raises(UserError, match="no head of a person's own"):
        front.load(model, head=name)
    opened = front.load(folder, head=name)
    texts = ["the cat is so good", "a dog", "film was bad bad"]
    found = [record["probabilities"] for record in opened.predict(texts)]
    expected = results["scores"]["validation"]
    assert front.evaluate(opened, tiny_tasks["classification"].folder) == pytest.approx(
        expected, abs=1e-5
    )
    assert not (tmp_path / "run" / "adapter").exists()
    if strategy == "prefix":
        return
    weights = load_file(folder / "model.safetensors")
    logits = by_hand(opened.embed(texts).astype(np.float64), weights)
    temperature = json.loads((folder / "jaxtune.json").read_text()).get("temperature", 1.0)
    odds = np.exp(logits / temperature)
    np.testing.assert_allclose(
        [list(row.values()) for row in found], odds / odds.sum(1, keepdims=True), atol=1e-5
    )
    assert score(settings, tmp_path / "run", lines)["validation"] == pytest.approx(
        expected, abs=1e-5
    )
    with pytest.raises(UserError, match="no ONNX graph"):
        check_exportable(folder, "onnx")
    (tmp_path / "new.csv").write_text("text\nthe cat\n")
    flags = [f"--model={folder}", f"--input={tmp_path / 'new.csv'}"]
    flags.append(f"--output={tmp_path / 'out.jsonl'}")
    with pytest.raises(UserError, match="if you trust it"):
        predict.main(flags)
    predict.main([*flags, f"--head={name}"])
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] in ("no", "yes")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("task", "family"),
    [
        *(("classification", family) for family in ("gpt2", "modernbert", "roberta")),
        ("multi_label", "distilbert"),
        ("regression", "bert"),
        ("token_classification", "bert"),
        ("image_classification", "vit"),
        ("image_classification", "resnet"),
    ],
)
def test_every_task_and_family(task, family, mine, tiny_weights, tiny_settings, tmp_path):
    model, head = tiny_weights(task, family), f"{mine}:plain"
    settings = tiny_settings(task, "full", model, **{"model.head": head})
    results = train(settings, tmp_path / "run", Report(quiet=True))
    opened = front.load(tmp_path / "run" / "model", head=head)
    found = score(settings, tmp_path / "run", Report(quiet=True))
    assert found["validation"] == pytest.approx(results["scores"]["validation"], abs=1e-5)
    assert "own_head" in opened.saved.pretrained.params
