"""Every config in configs/ trains offline on a tiny model when pointed at local folders."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from cover import mark_rest
from PIL import Image

from jaxtune import main
from jaxtune.run.config import load_config

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


def table(columns, *, test_labels=True):
    """A case of tab-separated files as GLUE's are, with the classes 0 and 1."""

    def make(folder, tiny_data):
        del tiny_data
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name, count in (("train", 24), ("dev", 8), ("test", 8)):
            lines = ["\t".join([*columns, "label"])]
            for i in range(count):
                texts = [f"the {word} {i}" for word in rng.choice(["cat", "dog"], len(columns))]
                label = str(i % 2) if test_labels or name != "test" else "-1"
                lines.append("\t".join([*texts, label]))
            (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        return [f"--config.data.path={folder}", "--config.data.name=None"]

    return make


def inference(folder, tiny_data):
    """Premises and hypotheses in three classes."""
    del tiny_data
    folder.mkdir()
    header = "premise\thypothesis\tlabel"
    for name in ("train", "validation", "test"):
        rows = [f"the cat {i}\tthe dog {i}\t{i % 3}" for i in range(24)]
        (folder / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    return [f"--config.data.path={folder}", "--config.data.name=None"]


def swag(folder, tiny_data):
    del tiny_data
    folder.mkdir()
    header = "\t".join(["sent1", "sent2", *(f"ending{i}" for i in range(4)), "label"])
    for name in ("train", "val", "test"):
        rows = [f"the cat {i}\tit\tran\tsat\tis good\tis bad\t{i % 4}" for i in range(24)]
        (folder / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    return [f"--config.data.path={folder}", "--config.data.name=None"]


def conll(folder, tiny_data):
    del tiny_data
    folder.mkdir()
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        sentence = "the\tO\ncat\tB-person\nran\tO\n\na\tO\nbad\tB-group\ndog\tI-group\n\n"
        (folder / name).write_text(sentence * 4)
    return [f"--config.data.path={folder}"]


def squad(folder, tiny_data):
    del tiny_data
    folder.mkdir()
    context = "the good dog ran in the film and the bad cat sat on a dog"
    answer = {"text": "bad cat", "answer_start": context.index("bad cat")}
    for name in ("train-v1.1", "dev-v1.1", "test-v1.1"):
        rows = [
            {"id": f"{name}{i}", "question": f"who sat {i}", "answers": [answer]} for i in range(6)
        ]
        data = [{"title": "t", "paragraphs": [{"context": f"{context} {name}", "qas": rows}]}]
        content = {"version": "1.1", "data": data}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return [f"--config.data.path={folder}", "--config.data.doc_stride=8"]


def wikitext(folder, tiny_data):
    del tiny_data
    folder.mkdir()
    for name in ("train", "valid", "test"):
        lines = [f" the cat sat on the {word} \n \n" for word in ("film", "dog", "cat") * 6]
        (folder / f"wiki.{name}.raw").write_text("".join(lines))
    return [f"--config.data.path={folder}", "--config.data.name=None"]


def images(*, validation):
    def make(folder, tiny_data):
        del tiny_data
        rng = np.random.default_rng(0)
        for split in ("train", "test", *(["validation"] if validation else [])):
            for name in ("soup", "cake"):
                place = folder / split / name
                place.mkdir(parents=True)
                for i in range(12):
                    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"{i}.png")
        return [f"--config.data.path={folder}", "--config.data.validation_size=6"]

    return make


CASES = {
    "agnews": (agnews, None),
    "fewshot": (table(["text"]), "bert"),
    "stsb": (stsb, None),
    "sts_embedding": (stsb, "bert"),
    "quickstart": (quickstart, None),
    "sst2": (table(["sentence"], test_labels=False), "bert"),
    "mrpc": (table(["sentence1", "sentence2"]), "bert"),
    "cola": (table(["sentence"]), "bert"),
    "mnli": (inference, "bert"),
    "snli": (inference, "bert"),
    "swag": (swag, "bert"),
    "gpt2_sst2": (table(["sentence"]), "gpt2"),
    "conll2003": (conll, "bert"),
    "wnut17": (conll, "bert"),
    "squad": (squad, "bert"),
    "wikitext": (wikitext, "gpt2"),
    "food101": (images(validation=False), "vit"),
    "cifar10": (images(validation=True), "resnet"),
}
"""How its data is made, and the tiny family that stands for its model; None for the golden BERT."""


KINDS = ("stsb", "conll2003", "food101")
"""One of most kinds of data; the quickstart's own are in the repository."""


def test_every_config_has_a_case():
    assert {file.stem for file in CONFIGS.glob("*.py")} == set(CASES)


def test_every_config_is_valid():
    for name in CASES:
        assert load_config(str(CONFIGS / f"{name}.py"), {}).task, name


@pytest.mark.parametrize("name", mark_rest(CASES, KINDS))
def test_it_trains(name, tmp_path, golden, tiny_data, tiny_families):
    make_data, family = CASES[name]
    more = make_data(tmp_path / "files", tiny_data)
    if family is None:
        more += [f"--config.model.path={golden / 'odd'}"]
    else:
        more += [f"--config.model.path={tiny_families[family]}", "--config.model.from_scratch=true"]
    length = 32 if name == "squad" else 16
    main.main(
        [
            f"--config={CONFIGS / name}.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.data.max_length={length if family else 32}",
            "--config.data.layout=padded",
            "--config.train.num_epochs=1",
            "--config.train.batch_size=8",
            *more,
        ]
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    wanted = {"validation"} if name == "sst2" else {"validation", "test"}
    assert results["scores"].keys() == wanted
    assert results["best_metric"] in results["scores"]["validation"]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_the_cifar_model_is_of_the_size_that_its_config_says():
    from jaxtune.core import trees
    from jaxtune.models.registry import parameter_shapes
    from jaxtune.models.source import read_source

    source = read_source(CONFIGS / "resnet_cifar")
    shapes = parameter_shapes(source.family.make_module("image", source.config, 10, np.float32))
    assert trees.count(shapes) == pytest.approx(2.8e6, rel=0.05)


def test_the_quickstart_names_the_files_by_their_digests(minilm):
    settings = load_config(str(CONFIGS / "quickstart.py"), {})
    assert settings.model.path == str(minilm)
    weights = (minilm / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == settings.model.sha256
    texts = Path(settings.data.source.path).read_bytes()
    assert hashlib.sha256(texts).hexdigest() == settings.data.source.sha256
    assert settings.data.splits.max_train_examples == 4000
    assert settings.data.splits.test_size >= 2000
