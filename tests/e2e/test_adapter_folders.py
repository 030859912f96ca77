"""Runs that leave an adapter folder behind, and predictions and scores from it."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
from cover import mark_rest
from safetensors.numpy import load_file, save_file

from jaxtune import main, predict
from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.export.adapter_folder import open_model

ROOT = Path(__file__).parents[2]
TEXTS = ["love this great film", "hate, bad", "it is a car", "the old dog is not good"]
UNMERGEABLE = {
    "adapter": ["--config.tuning.bottleneck_size=5"],
    "prefix": ["--config.tuning.prefix_length=3"],
    "lora+adapter": ["--config.tuning.rank=2", "--config.tuning.placement=houlsby"],
    "adapter+layernorm": ["--config.precision.frozen_dtype=bfloat16"],
}


def run(config, workdir, *more):
    main.main([f"--config={config}", f"--workdir={workdir}", *more])
    return json.loads((workdir / "results.json").read_text())


def predictions(model, folder, texts=TEXTS):
    (folder / "new.txt").write_text("\n".join(texts) + "\n")
    output = folder / "out.jsonl"
    where = [f"--model={model}", f"--input={folder / 'new.txt'}", f"--output={output}"]
    predict.main([*where, "--columns="])
    return [json.loads(line) for line in output.read_text().splitlines()]


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], marks=pytest.mark.exhaustive),
        pytest.param(["use_rslora=true"], marks=pytest.mark.exhaustive),
        ["use_dora=true", "dropout=0.1"],
    ],
)
def test_lora_writes_the_merged_model_and_the_adapter(config, tmp_path, fields):
    workdir = tmp_path / "run"
    more = ["--config.train.num_epochs=1", *[f"--config.tuning.{f}" for f in fields]]
    run(config, workdir, "--config.tuning.name=lora", *more)
    names = {path.name for path in (workdir / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "jaxtune.json"} <= names
    merged = predictions(workdir / "model", tmp_path)
    beside = predictions(workdir / "adapter", tmp_path)
    assert [record["label"] for record in merged] == [record["label"] for record in beside]
    for one, other in zip(merged, beside, strict=True):
        assert list(one["probabilities"]) == ["bad", "good", "so"]
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)


@pytest.mark.parametrize("name", mark_rest(("ia3", "lora+layernorm"), ("ia3",)))
def test_other_mergeable_strategies_write_the_model_alone(config, tmp_path, name):
    run(config, tmp_path / "run", f"--config.tuning.name={name}", "--config.train.num_epochs=1")
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert not (tmp_path / "run" / "adapter").exists()


def test_lora_that_peft_cannot_hold_says_so(config, tmp_path, capsys):
    where = "--config.tuning.targets=word_embeddings/embedding$"
    run(config, tmp_path / "run", "--config.tuning.name=lora", where, "--config.train.num_epochs=1")
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert not (tmp_path / "run" / "adapter").exists()
    assert "no adapter/ in peft's files" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", mark_rest(UNMERGEABLE, ("adapter+layernorm",)))
def test_what_cannot_be_merged_is_scored_from_its_folder(
    config, tmp_path, tiny_data, eval_scores, name
):
    workdir = tmp_path / "run"
    more = ["--config.train.num_epochs=1", *UNMERGEABLE[name]]
    results = run(config, workdir, f"--config.tuning.name={name}", *more)
    names = {path.name for path in (workdir / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "jaxtune.json"} <= names
    assert not {"config.json", "model.safetensors"} & names
    assert not (workdir / "adapter").exists()
    scores = eval_scores(config, workdir)
    for split, found in scores.items():
        wanted = {name: results["scores"][split][name] for name in found}
        assert found == pytest.approx(wanted, rel=1e-5)  # in rows of another length
    with (tiny_data / "test.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    records = predictions(workdir / "model", tmp_path, [row["text"] for row in rows])
    pairs = zip(records, rows, strict=True)
    losses = [-math.log(record["probabilities"][row["label"]]) for record, row in pairs]
    assert sum(losses) / len(rows) == pytest.approx(results["scores"]["test"]["loss"], abs=1e-5)


FOLDERS = {"lora": "adapter", "adapter": "model", "prefix": "model"}
"""Where a strategy leaves what it added."""


@pytest.mark.parametrize("name", mark_rest(("lora", "adapter"), ("lora",)))
def test_a_base_without_head_and_pooler_gets_both_from_the_adapter(config, tmp_path, bare, name):
    workdir = tmp_path / "run"
    base = [f"--config.model.path={bare}", f"--config.tuning.name={name}"]
    results = run(config, workdir, *base, "--config.train.num_epochs=1")
    records = predictions(workdir / FOLDERS[name], tmp_path)
    assert predictions(workdir / "model", tmp_path) == [
        {
            "label": record["label"],
            "probabilities": pytest.approx(record["probabilities"], abs=1e-5),
        }
        for record in records
    ]
    assert results["scores"]["test"]["accuracy"] >= 0


@pytest.fixture
def bare(golden, tmp_path):
    """The odd encoder alone: no pooler, no classifier; with odd's tokenizer."""
    folder = tmp_path / "bare"
    shutil.copytree(golden / "odd", folder)
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if "pooler" not in k and "classifier" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("name", mark_rest(("lora", "prefix"), ("prefix",)))
def test_regression_from_an_adapter_folder(config, tmp_path, golden, write_csv, name):
    words = ["good", "bad", "film", "car", "great", "poor", "cat", "dog"]
    rows = [(f"{a} {b}", len(a) - len(b)) for a in words for b in words]
    data = write_csv(tmp_path / "numbers.csv", rows, header=("text", "label"))
    more = ["--config.task=regression", f"--config.data.path={data}", "--config.data.test_size=9"]
    workdir = tmp_path / "run"
    more += ["--config.train.num_epochs=1"]
    results = run(config, workdir, f"--config.tuning.name={name}", *more)
    assert "pearson" in results["scores"]["test"]
    records = predictions(workdir / FOLDERS[name], tmp_path)
    assert [record.keys() for record in records] == [{"value"}] * 4
    opened, _ = open_model(workdir / FOLDERS[name])
    assert opened.class_names == ()


def test_a_folder_that_does_not_fit_its_base_is_refused(config, tmp_path, golden):
    workdir = tmp_path / "run"
    run(config, workdir, "--config.tuning.name=prefix", "--config.train.num_epochs=1")
    file = workdir / "model" / "adapter_config.json"
    original = file.read_text()
    tuning = json.loads(original)["tuning"]
    bad = [
        ({"base_sha256": "0" * 64}, "trained on weights with sha256 0000"),
        ({"base_model_name_or_path": "/gone"}, "names the base model '/gone'.*does not exist"),
        ({"base_model_name_or_path": str(workdir / "model")}, "holds what was trained"),
        ({"tuning": None}, "tuning is None, expected the section"),
        ({"tuning": tuning | {"name": "adapter"}}, "is missing. The strategy 'adapter'"),
        ({"tuning": tuning | {"prefix_length": 2}}, r"shape \[16, 36\].*ask for \[2, 36\]"),
        ({"tuning": tuning | {"rank": 2}}, "rank is set, but the strategy 'prefix' has no rank"),
        ({"tuning": {"name": "full"}}, "is left over. The strategy 'full'"),
        ({"peft_type": "PREFIX_TUNING"}, "peft_type is 'PREFIX_TUNING': expected 'LORA' or"),
    ]
    for fields, message in bad:
        edit(file, **fields)
        with pytest.raises(UserError, match=message):
            open_model(workdir / "model")
        file.write_text(original)
    open_model(workdir / "model")
    with pytest.raises(UserError, match=r"set config\.model\.path to a merged model/ folder"):
        run(config, tmp_path / "again", f"--config.model.path={workdir / 'model'}")


def test_the_model_on_the_added_leaves_is_what_is_opened(deep_config, tmp_path):
    run(
        deep_config, tmp_path / "run", "--config.tuning.name=adapter", "--config.train.num_epochs=1"
    )
    opened, tokenizer_folder = open_model(tmp_path / "run" / "model")
    assert opened.folder == tokenizer_folder == tmp_path / "run" / "model"
    names = [name for name in paths.leaf_names(opened.params) if "/adapter/" in name]
    assert len(names) == 3 * 4
