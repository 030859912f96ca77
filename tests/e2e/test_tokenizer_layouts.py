"""A model of each family, with its tokenizer in each layout, predicts from its own export."""

import json

import pytest
from cover import mark_rest
from layouts import KINDS, make, write_slow_files

import jaxtune
from jaxtune.data.text.tokens import load_tokenizer, tokenize
from jaxtune.export import adapter_folder
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.train import product_of

TEXTS = ["The Harbour in 2019", "EU ships at noon", "<pad> [MASK] <|endoftext|>"]
SLOW = {"bert, lower case": "vocab.txt", "roberta": "vocab.json", "gpt2": "vocab.json"}
CASES = [
    *((kind, "fast") for kind in KINDS),
    *((kind, layout) for kind in SLOW for layout in ("slow", "both")),
]


@pytest.mark.parametrize(("kind", "layout"), mark_rest(CASES, [("gpt2", "fast")]))
def test_it_predicts_from_its_own_export(
    tiny_families, tiny_tasks, write_settings, tmp_path, kind, layout
):
    base, family = tmp_path / "base", kind.split(",")[0]
    backend = make(base, kind)
    if layout == "slow":
        write_slow_files(base, backend)
    elif layout == "both":
        backend.model.save(str(base))
    config = json.loads((tiny_families[family] / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 400}))
    settings = write_settings(
        "classification", "full", base, tmp_path, {"model.from_scratch": True}
    )
    run = prepare(settings, Report(quiet=True))
    adapter_folder.write(tmp_path, product_of(run), run.params, {"task": "classification"}, print)
    model = jaxtune.load(tmp_path / "model")
    records = model.predict(TEXTS)
    assert [sum(r["probabilities"].values()) for r in records] == pytest.approx([1.0] * 3)
    rows = [(text,) for text in TEXTS]
    ours = tokenize(load_tokenizer(base), rows, 48)[0]
    again = tokenize(load_tokenizer(tmp_path / "model"), rows, 48)[0]
    assert again.input_ids.tolist() == ours.input_ids.tolist()
