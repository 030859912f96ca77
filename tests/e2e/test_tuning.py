"""Strategies chosen by config: what a run with them leaves, shows and refuses."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune import main


def run(config, workdir, *more):
    main.main([f"--config={config}", f"--workdir={workdir}", *more])
    return json.loads((workdir / "results.json").read_text())


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_a_frozen_base_in_bfloat16(config, tmp_path, capsys):
    """What is exported is the base in bfloat16 with the term on top; the head stays float32."""
    more = ["--config.tuning.name=lora", "--config.precision.frozen_dtype=bfloat16"]
    run(config, tmp_path / "run", *more)
    log = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [row["validation/loss"] for row in log if "validation/loss" in row]
    assert losses[0] > losses[1] > losses[2]
    after = weights(tmp_path / "run" / "model")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert after[name].dtype == np.float32
    low = after[name].view(np.uint32) & 0xFFFF
    assert not low.any()  # a bfloat16 number is a float32 that ends in zeros
    assert (after["classifier.weight"].view(np.uint32) & 0xFFFF).any()
    assert "frozen ones bfloat16" in capsys.readouterr().out


@pytest.mark.usefixtures("counted_operations")
def test_the_start_shows_groups_rates_and_cost(deep_config, tmp_path, capsys):
    more = [
        "--config.optimizer.layer_decay=0.5",
        "--config.optimizer.rate_multipliers=classifier/=2",
    ]
    run(deep_config, tmp_path / "run", *more, "--config.train.num_epochs=1")
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    rates = {
        row[1]: row[-2] for row in rows if len(row) > 5 and row[0] == "trainable" and "/" in row[1]
    }
    assert rates["bert/encoder/layer/2"] == "0.0015"
    assert rates["bert/encoder/layer/0"] == "0.000375"
    assert rates["bert/embeddings"] == "0.000188"
    assert rates["classifier/kernel"] == "0.006"
    assert "one step costs 100% of the floating-point operations of a full one" in shown


def test_what_is_newly_drawn_is_trained_by_any_strategy(config, tmp_path, golden, capsys):
    """A pooler that the files lack would stay at random values under `head`."""
    folder = tmp_path / "bare"
    shutil.copytree(golden / "odd", folder)
    kept = {k: v for k, v in weights(golden / "odd").items() if "pooler" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    more = [f"--config.model.path={folder}", "--config.tuning.name=head"]
    results = run(config, tmp_path / "run", *more, "--config.train.num_epochs=1")
    assert "bert/pooler: newly initialised, so trained too" in capsys.readouterr().out
    assert results["trainable_parameters"] == 36 * 36 + 36 + 36 * 3 + 3


def test_a_union_is_merged_whole(deep_config, tmp_path, golden):
    more = ["--config.tuning.name=lora+ia3+layernorm", "--config.train.num_epochs=1"]
    run(deep_config, tmp_path / "run", *more)
    before, after = weights(golden / "odd"), weights(tmp_path / "run" / "model")
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    layer = "bert.encoder.layer.1."
    expected = ["attention.self.query.weight", "attention.self.key.weight", "output.dense.weight"]
    assert {layer + name for name in [*expected, "output.LayerNorm.weight"]} <= changed
    assert layer + "intermediate.dense.weight" not in changed
    assert set(after) == set(before)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["name=lora", "targets=querry/kernel$"], r"matches none of the \d+ parameters.*query"),
        (["name=lora+gradual"], "cannot be joined"),
        (["name=adapter", "rank=3"], "tuning.rank is set, but the strategy 'adapter' has no rank"),
        (["name=lora", "rank=40"], "LoRA's rank is 40"),
        (["name=prefix", "prefix_length=0"], "prefix_length is 0"),
        (
            ["name=gradual", "stage_length=0.5", "../precision.frozen_dtype=bfloat16"],
            "frozen_dtype is 'bfloat16', but 'gradual' trains those parameters later",
        ),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_before_weights_are_read(
    config, tmp_path, golden, more, message
):
    folder = tmp_path / "model"
    shutil.copytree(golden / "odd", folder)
    (folder / "model.safetensors").write_bytes(b"not read")
    fields = [f"--config.tuning.{part}".replace("tuning.../", "") for part in more]
    with pytest.raises(main.UserError, match=message):
        run(config, tmp_path / "run", *fields, f"--config.model.path={folder}")
