"""Texts a second of one classifier in each format that it can be taken to.

    python benchmarks/serving_formats.py --model=runs/mine/model --data=AG_NEWS/test.csv \
        [--texts=1024] [--rounds=7] [--threads=2]

The model is a fine-tuned classifier of texts such as MiniLM on AG News; the data is a csv with the
columns that it was trained on. All take the same texts in the same batches of 32, ordered by length
and padded to the longest: jaxtune in float32 and bfloat16, ONNX Runtime with the files of `jaxtune
export` in float32 and int8, and with the dynamic int8 of onnxruntime.quantization made of the
former. Formats take turns, batch by batch, in rounds; the first, in which JAX compiles, counts for
nothing, and the median of the others is printed as one line of JSON for each format: texts/s, the
share of labels that are those of jaxtune in float32, the most that a logit of a text alone differs
from that in its batch, and bytes. It needs `pip install "jaxtune[export]"`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.export.onnx_file import PRECISIONS, write_onnx
from jaxtune.export.signature import signature_of
from jaxtune.run.predictions import own_columns
from jaxtune.run.saved import SavedModel, open_saved

BATCH = 32
ALONE = 8  # texts that are run alone, too


def encode(saved: SavedModel, file: str, count: int) -> Any:
    """Examples of the first texts."""
    task = saved.task
    rows = task.data.read_new(Path(file), own_columns(task, saved.card), "utf-8")
    rows = rows._replace(inputs=rows.inputs[:count], reasons=None)
    return task.data.encode(rows, saved.processor, saved.data, iter)[0]


def batch_of(examples: Any, indices: np.ndarray, names: Any) -> dict[str, np.ndarray]:
    """The inputs of some texts, padded to the longest of them."""
    length = int(examples.lengths[indices].max())
    batch = examples.collate(BatchIndex(indices, length), len(indices))
    return {name: batch[name].astype(np.int64) for name in names}


def own(model: str, dtype: str) -> Any:
    """jaxtune, with products in a dtype."""
    saved = open_saved(model, dtype)
    step = jax.jit(
        lambda params, batch: saved.pretrained.apply_fn(params, batch, key=None, train=False)
    )

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        batch = {name: jnp.asarray(values, jnp.int32) for name, values in inputs.items()}
        return np.asarray(step(saved.pretrained.params, batch))

    return run


def session(file: Path, threads: int) -> Any:
    """ONNX Runtime, with a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    found = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: np.asarray(found.run(None, inputs)[0])


def open_formats(saved: SavedModel, model: str, folder: Path, threads: int) -> dict[str, Any]:
    """Functions from inputs to logits, by format."""
    for kind, precision in PRECISIONS.items():
        pretrained = saved.pretrained
        write_onnx(folder / kind, pretrained.design, pretrained.params, precision)
    dynamic = folder / "onnxruntime dynamic int8"
    quantize_dynamic(folder / "onnx", dynamic, weight_type=QuantType.QInt8)
    files = {file.name: session(file, threads) for file in sorted(folder.iterdir())}
    return {f"jaxtune {dtype}": own(model, dtype) for dtype in ("float32", "bfloat16")} | files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    flags = parser.parse_args()
    saved = open_saved(flags.model)
    names = signature_of(saved.pretrained.design).inputs
    examples = encode(saved, flags.data, flags.texts)
    order = np.argsort(examples.lengths, kind="stable")
    parts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    batches = [batch_of(examples, part, names) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        formats = open_formats(saved, flags.model, Path(folder), flags.threads)
        sizes = {file.name: file.stat().st_size for file in Path(folder).iterdir()}
        seconds: dict[str, list[float]] = {name: [] for name in formats}
        logits: dict[str, list[np.ndarray]] = {}
        for _ in range(flags.rounds + 1):
            logits, spent = {name: [] for name in formats}, dict.fromkeys(formats, 0.0)
            for inputs in batches:
                for name, run in formats.items():
                    start = time.perf_counter()
                    logits[name].append(run(inputs))
                    spent[name] += time.perf_counter() - start
            for name, total in spent.items():
                seconds[name].append(total)
        wanted = np.concatenate(logits["jaxtune float32"]).argmax(-1)
        some = np.linspace(0, len(order) - 1, ALONE).astype(int)
        for name, run in formats.items():
            found = np.concatenate(logits[name])
            alone = np.concatenate([run(batch_of(examples, order[[i]], names)) for i in some])
            row = {
                "format": name,
                "texts_per_second": round(len(order) / float(np.median(seconds[name][1:])), 1),
                "agreement": round(float((found.argmax(-1) == wanted).mean()), 4),
                "alone_differs_by": float(np.abs(alone - found[some]).max()),
                "bytes": sizes.get(name),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
