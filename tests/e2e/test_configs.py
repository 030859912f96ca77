"""Every config in configs/ trains offline on a tiny model when pointed at local folders."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from jaxtune import main
from jaxtune.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def agnews(folder, tiny_data):
    del folder
    return [f"--config.data.path={tiny_data}"]


def stsb(folder, tiny_data):
    """The benchmark's own files: no quoting; the third has no header and is ragged."""
    del tiny_data
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = ["good", "bad", "film", "car", "great", "poor", 'the "']
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2"
    header += "\tsentence1\tsentence2\tscore"
    for name, count in (("train", 60), ("dev", 20)):
        lines = [header]
        for i in range(count):
            pair = [" ".join(rng.choice(words, size=4)) for _ in range(2)]
            score = f"{rng.uniform(0, 5):.3f}"
            lines.append("\t".join([str(i), "g", "f", "2012", "0", "s", "s", *pair, score]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    lines = []
    for i in range(20):
        pair = [" ".join(rng.choice(words, size=4)) for _ in range(2)]
        credits = ["from a", "from b"] if i % 3 == 0 else []
        lines.append("\t".join(["g", "f", "2012", "0", f"{i % 6}.0", *pair, *credits]))
    (folder / "original_sts-test.tsv").write_text("\n".join(lines) + "\n")
    return [f"--config.data.path={folder}"]


def quickstart(folder, tiny_data):
    del folder, tiny_data
    return [
        "--config.model.sha256=None",
        "--config.data.max_train_examples=64",
        "--config.data.max_eval_examples=40",
        "--config.tuning.num_layers=1",
    ]


CASES = {"agnews": agnews, "stsb": stsb, "quickstart": quickstart}


def test_every_config_has_a_case():
    assert {file.stem for file in CONFIGS.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_it_trains(name, tmp_path, golden, tiny_data):
    more = CASES[name](tmp_path / "files", tiny_data)
    main.main(
        [
            f"--config={CONFIGS / name}.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.model.path={golden / 'odd'}",
            "--config.data.max_length=32",
            "--config.data.layout=padded",
            "--config.train.num_epochs=1",
            *more,
        ]
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["scores"].keys() == {"validation", "test"}
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_the_quickstart_names_the_files_by_their_digests(minilm):
    settings = load_config(str(CONFIGS / "quickstart.py"), {})
    assert settings.model.path == str(minilm)
    weights = (minilm / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == settings.model.sha256
    texts = Path(settings.data.path).read_bytes()
    assert hashlib.sha256(texts).hexdigest() == settings.data.sha256
    assert settings.data.max_train_examples == 4000
    assert settings.data.test_size >= 2000
