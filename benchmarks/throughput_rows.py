"""The rows that benchmarks/throughput.py measures, and the jobs that it hands to the workers."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).absolute().parent.parent
ALL = ("jaxtune", "trainer", "torch", "keras", "flax")
PARTIAL = ("jaxtune", "trainer", "torch")  # those that can freeze


class Peer(NamedTuple):
    """A tool.

    Attributes:
      worker: its script.
      framework: to whose peak it is held.
      options: of the script; of jaxtune's, fields of its config.
      base: the peer that this one was added beside.
      tree: of jaxtune, the checkout that runs: this one or another.
    """

    worker: str
    framework: str
    options: Mapping[str, str] = MappingProxyType({})
    base: str | None = None
    tree: Path | None = None


class Row(NamedTuple):
    """What is measured.

    Attributes:
      mode: `train` or `eval`.
      dtype: of the products.
      strategy: `full`, `last_layers` (the upper one) or `head`.
      peers: in the order of their turns.
      share: of --examples.
      wide: whether the model has 12 layers of width 768, randomly drawn.
      epochs: in a round; more than one are counted from a new start.
      note: for the heading.
    """

    mode: str
    dtype: str
    strategy: str = "full"
    peers: tuple[str, ...] = ALL
    share: float = 1.0
    wide: bool = False
    epochs: int = 1
    note: str = ""


PEERS = {
    "jaxtune": Peer("jaxtune_worker.py", "jax", tree=HERE),
    "trainer": Peer("trainer_worker.py", "torch"),
    "torch": Peer("torch_loop.py", "torch"),
    "pad512": Peer("trainer_worker.py", "torch", {"pad_to": "512"}),
    "keras": Peer("keras_worker.py", "jax"),
    "flax": Peer("flax_worker.py", "jax"),
}
LATER = "each epoch after the first"
ROWS = {
    "full-float32": Row("train", "float32", note="full fine-tuning"),
    "full-bfloat16": Row("train", "bfloat16", note="full fine-tuning"),
    "eval-float32": Row("eval", "float32", note="prediction"),
    "eval-bfloat16": Row("eval", "bfloat16", note="prediction"),
    "last_layers": Row("train", "float32", "last_layers", PARTIAL, note=f"one layer, {LATER}"),
    "head": Row("train", "float32", "head", PARTIAL, note=LATER),
    "head-three": Row("train", "float32", "head", PARTIAL, epochs=3, note="three epochs in all"),
    "wide": Row(
        "train", "float32", "last_layers", PARTIAL, share=0.25, wide=True,
        note=f"12 layers of width 768, the upper one trained, {LATER}",
    ),
    "wide-full": Row(
        "train", "bfloat16", peers=PARTIAL, share=0.25, wide=True,
        note="12 layers of width 768, full fine-tuning",
    ),
    "pad512": Row(
        "train", "float32", peers=("jaxtune", "trainer", "pad512"), share=0.125,
        note="beside rows padded to 512 tokens",
    ),
}  # fmt: skip
WIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}
BASE = {
    "data.max_length": "128",
    "optimizer.learning_rate": "5e-5",
    "train.batch_size": "32",
    "train.eval_batch_size": "64",
    "train.num_epochs": "1000",  # so that the rate hardly falls
}


def write_jobs(
    row: Row,
    folder: Path,
    config: str,
    overrides: dict[str, str],
    num_examples: int,
    device: str,
    peers: Mapping[str, Peer],
) -> tuple[dict[str, Path], np.ndarray, dict[str, Any]]:
    """Writes the rows, and a job for each peer.

    Args:
      row: what is measured.
      folder: gets the files.
      config: a config file of jaxtune, which names data and model for all.
      overrides: of its fields.
      num_examples: rows of an epoch.
      device: `cpu` or `gpu`.
      peers: by name.

    Returns:
      (job files by peer, tokens of each row, the model's config.json with `num_classes`).
    """
    from jaxtune.models.source import read_source
    from jaxtune.run.config import load_config

    own = {"precision.compute_dtype": row.dtype, "tuning.name": row.strategy}
    own |= {"data.max_train_examples": str(num_examples)}
    own |= {"data.max_eval_examples": str(num_examples)}
    if row.strategy == "last_layers":
        own["tuning.num_layers"] = "1"
    fields = BASE | overrides | own
    settings = load_config(config, fields)
    model = read_source(settings.model.path, settings.model.revision).path
    if row.wide:
        model = write_wide(model, folder / "model")
        fields["model.path"] = str(model)
    lengths, num_classes = write_rows(settings, model, folder / "rows.npz")
    job = {
        "mode": row.mode,
        "rows": str(folder / "rows.npz"),
        "model": str(model),
        "from_scratch": settings.model.from_scratch,
        "dtype": row.dtype,
        "strategy": row.strategy,
        "num_layers": 1,
        "batch_size": settings.train.batch_size,
        "eval_batch_size": settings.train.eval_batch_size,
        "learning_rate": settings.optimizer.learning_rate,
        "max_length": settings.data.tokens.max_length,
        "device": device,
        "restarts": row.epochs > 1,
        "config": str(Path(config).absolute()),
    }
    jobs = {}
    for name, peer in peers.items():
        jobs[name] = folder / f"{name}.json"
        more: dict[str, Any] = {
            "options": dict(peer.options),
            "overrides": fields | dict(peer.options),
        }
        if peer.tree is not None and peer.tree != HERE:  # whose own file it reads
            more["config"] = str(peer.tree / "configs" / Path(config).name)
        text = json.dumps(job | more, indent=2)
        jobs[name].write_text(text + "\n", encoding="utf-8")
    model_config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return jobs, lengths[row.mode], model_config | {"num_classes": num_classes}


def write_rows(settings: Any, model: Path, file: Path) -> tuple[dict[str, np.ndarray], int]:
    """Tokenizes the rows of `train` and `eval`; (tokens of each row by split, classes)."""
    from jaxtune.data.sources.rows import read_data
    from jaxtune.data.text.tokens import load_tokenizer, tokenize
    from jaxtune.tasks.registry import find_task

    data = read_data(settings.data, find_task(settings.task).data.reader)
    sources = {"train": "train", "eval": "test" if "test" in data.splits else "validation"}
    tokenizer, arrays, lengths = load_tokenizer(model), {}, {}
    for split, source in sources.items():
        rows = data.splits[source]
        tokens, _ = tokenize(tokenizer, rows.inputs, settings.data.tokens.max_length)
        arrays[f"{split}_input_ids"] = tokens.input_ids
        arrays[f"{split}_offsets"] = tokens.offsets
        arrays[f"{split}_labels"] = np.asarray(rows.labels)
        lengths[split] = tokens.lengths
    np.savez(file, **arrays)
    return lengths, len(data.class_names)


def write_wide(model: Path, folder: Path) -> Path:
    """A folder with the tokenizer of `model`, the config of a larger BERT and random weights.

    They are in a file, so that all peers begin with the same.
    """
    from safetensors.numpy import save_file

    folder.mkdir()
    for file in model.iterdir():
        if file.suffix in (".json", ".txt") and file.is_file():
            shutil.copy(file, folder / file.name)
    config = json.loads((model / "config.json").read_text(encoding="utf-8")) | WIDE
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(random_bert(config), folder / "model.safetensors", {"format": "pt"})
    return folder


def random_bert(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Weights of a BERT encoder, drawn as at the start of its training."""
    rng, d, inner = np.random.default_rng(0), config["hidden_size"], config["intermediate_size"]
    found: dict[str, np.ndarray] = {}

    def matrix(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape, np.float32)
        found[f"{name}.weight"] = values * np.float32(config["initializer_range"])

    def dense(name: str, inputs: int, outputs: int) -> None:
        matrix(name, outputs, inputs)
        found[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = np.ones(d, np.float32)
        found[f"{name}.bias"] = np.zeros(d, np.float32)

    matrix("embeddings.word_embeddings", config["vocab_size"], d)
    matrix("embeddings.position_embeddings", config["max_position_embeddings"], d)
    matrix("embeddings.token_type_embeddings", config["type_vocab_size"], d)
    norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{part}", d, d)
        dense(f"{layer}.attention.output.dense", d, d)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", d, inner)
        dense(f"{layer}.output.dense", inner, d)
        norm(f"{layer}.output.LayerNorm")
    dense("pooler.dense", d, d)
    return found


def model_flops(row: Row, config: dict[str, Any], lengths: np.ndarray) -> float:
    """What one epoch must compute, as the module's docstring defines it."""
    d, inner, depth = (config[n] for n in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    n, tokens = len(lengths), float(lengths.sum())
    squares = float((lengths.astype(np.float64) ** 2).sum())

    def forward(layers: int) -> float:
        products = 2 * layers * (4 * d * d + 2 * d * inner) * tokens
        return products + 4 * layers * d * squares + 2 * (d * d + d * config["num_classes"]) * n

    if row.mode == "eval":
        return forward(depth)
    if row.strategy == "last_layers":
        return forward(depth) + 2 * forward(1) - 6 * d * d * tokens
    if row.strategy == "head":
        return forward(depth) + 2 * d * config["num_classes"] * n
    return 3 * forward(depth)
