"""`jaxtune compare` on workdirs of finished runs."""

import csv
import json
import shutil

import numpy as np
import pytest
from finished_runs import MADE, kept_of, write_workdir

from jaxtune.__main__ import run
from jaxtune.core.errors import UserError
from jaxtune.run import predictions_folder


@pytest.fixture
def runs(tmp_path):
    """A function: name, changes of the config, accuracy -> a workdir."""
    base = write_workdir(tmp_path, "classification")

    def make(name, score, seed=0, better=0.0, **changes):
        place = tmp_path / name
        shutil.copytree(base, place)
        config = json.loads((place / "config.json").read_text())
        config["seed"] = seed
        for field, value in changes.items():
            section, _, key = field.partition("__")
            config[section][key] = value
        (place / "config.json").write_text(json.dumps(config))
        results = json.loads((place / "results.json").read_text())
        results["scores"] = {
            split: {"loss": 1.0, "accuracy": score} for split in ("validation", "test")
        }
        (place / "results.json").write_text(json.dumps(results))
        outputs, examples = MADE["classification"](200)
        right = np.random.default_rng(seed).random(200) < better
        outputs[np.arange(200)[right], examples.labels[right]] += 20
        made = (outputs, examples)
        predictions_folder.write(place, kept_of("classification", made=made))
        return place

    return make


def test_seeds_are_one_row_and_others_are_tested(runs, tmp_path, capsys):
    a0, a1 = runs("a0", 0.70), runs("a1", 0.80, seed=1)
    b = runs("b", 0.9, better=0.5, optimizer__learning_rate=1e-3, train__log_every_steps=3)
    moved = runs("moved", 0.9, seed=2, data__path="/elsewhere", model__path="/other")
    stopped = runs("stopped", 0.9, optimizer__b1=0.5)
    (stopped / "results.json").unlink()
    files = [tmp_path / name for name in ("o.json", "o.csv", "o.png")]
    names = [str(place) for place in (a0, b, a1, stopped, moved)]
    run(["compare", *names, f"--output={files[0]}", f"--plot={files[2]}"])
    told = capsys.readouterr().out
    assert "not finished" in told
    assert "optimizer.b1" not in told  # of which no finished run has another
    assert files[2].read_bytes().startswith(b"\x89PNG")
    found = json.loads(files[0].read_text())
    first, second = found["groups"]
    assert first["seeds"] == [0, 1, 2]
    assert second["settings"] == {"optimizer.learning_rate": 1e-3}
    spread = first["scores"]["test"]["accuracy"]
    values = [0.7, 0.8, 0.9]
    assert spread == {
        "mean": pytest.approx(np.mean(values)),
        "deviation": pytest.approx(np.std(values, ddof=1)),
        "known": 3,
    }
    assert found["unfinished"][0]["run"] == str(stopped)
    assert "after step 6" in found["unfinished"][0]["reason"]
    (difference,) = found["differences"]
    assert difference["runs"] == [str(a0), str(b)]
    assert 0 < difference["interval"][0] < difference["difference"] < difference["interval"][1]
    assert difference["p_value"] < 0.01
    assert difference["rows"] == 200
    run(["compare", *names, f"--output={files[1]}"])
    with files[1].open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["seeds"] for row in rows] == ["3", "1"]
    assert float(rows[0]["test/accuracy"]) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__sha256": "c" * 64}, "their data differ"),
        ({"data__label_column": "other"}, "data.label_column differ"),
        ({"data__split_seed": 4}, "data.split_seed differ"),
    ],
)
def test_other_data_is_refused(runs, changes, told):
    names = [str(runs("a", 0.5)), str(runs("b", 0.5, **changes))]
    with pytest.raises(UserError, match=told):
        run(["compare", *names])


def test_what_a_person_gets_wrong(runs, tmp_path):
    a, b = runs("a", 0.5), runs("b", 0.5)
    for argv, told in (
        ([a], "two or more"),
        ([a, a], "one workdir"),
        ([a, tmp_path / "none"], "no config.json"),
        ([a, b, "--output=x.txt"], r"ends in \.json or \.csv"),
        ([a, b, "--plot=x.pdf"], r"ends in \.png"),
        ([a, b, "--plots=x"], "Nearest: --plot"),
    ):
        with pytest.raises(UserError, match=told):
            run(["compare", *map(str, argv)])
    for place in (a, b):
        (place / "results.json").unlink()
    with pytest.raises(UserError, match="none of the 2 runs is finished"):
        run(["compare", str(a), str(b)])
    config = json.loads((b / "config.json").read_text())
    (b / "config.json").write_text(json.dumps(config | {"task": "regression"}))
    with pytest.raises(UserError, match="their task differ"):
        run(["compare", str(a), str(b)])
