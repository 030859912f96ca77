"""Checks a model folder that jaxtune wrote, and its predictions, with torch and transformers.

Run by hand (or in a job that has torch); jaxtune itself is not imported:

    python -m jaxtune.predict ... > predictions.jsonl
    python tests/golden/check_export.py MODEL_DIR texts.txt predictions.jsonl --reexport DIR

texts.txt has one text a line. Each line of predictions.jsonl has, for a classifier, `label`
and `probabilities` (class name to number), and for a regression `value`. Fails, with exit code
1, where transformers gives another label, a number further off than the tolerance, other class
names, or a weight that is missing or left over. `--reexport` saves the model again through
transformers and compares every tensor, byte by byte.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

NOT_PARAMETERS = ("position_ids",)  # a buffer that older versions of transformers saved


def read_texts(path: Path) -> list[str]:
    """One text a line; split at newlines alone, as texts may hold other line separators."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.read().removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def read_predictions(path: Path) -> list[dict]:
    """One JSON object a line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def load(folder: Path) -> tuple[PreTrainedModel, list[str]]:
    """The model as saved, and what was wrong with its weights."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="auto", output_loading_info=True, local_files_only=True
    )
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        found = [k for k in info.get(kind, []) if not str(k).endswith(NOT_PARAMETERS)]
        if found:
            problems.append(f"{kind}: {sorted(map(str, found))}")
    return model.eval(), problems


@torch.no_grad()
def logits_of(
    model: PreTrainedModel, folder: Path, texts: list[str], max_length: int | None
) -> torch.Tensor:
    """Logits [b, classes] in float32, one text at a time, so that nothing is padded."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    limit = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    length = limit if max_length is None else max_length
    model = model.float()
    rows = [
        model(**tokenizer(t, truncation=True, max_length=length, return_tensors="pt")).logits
        for t in texts
    ]
    return torch.cat(rows)


def class_problems(
    predictions: list[dict], probabilities: torch.Tensor, names: list[str], tolerance: float
) -> tuple[list[str], float]:
    """What is wrong with a classifier's predictions, and the largest difference."""
    problems, largest = [], 0.0
    for line, (found, want) in enumerate(zip(predictions, probabilities, strict=True), start=1):
        given = found.get("probabilities", {})
        if sorted(given) != sorted(names):
            problems.append(f"line {line}: classes {sorted(given)}, id2label has {sorted(names)}")
            continue
        values = torch.tensor([given[n] for n in names], dtype=torch.float64)
        gap = (values - want).abs().max().item()  # NaN if any is, unlike Python's max
        largest = max(gap, largest)
        if not gap <= tolerance:
            problems.append(f"line {line}: probabilities differ by {gap:.3g}, above {tolerance:g}")
        # Two classes within the tolerance of each other may swap places.
        label, best = found.get("label"), want.max().item()
        if label not in names or best - want[names.index(label)].item() > tolerance:
            problems.append(f"line {line}: label {label!r}, expected {names[want.argmax()]!r}")
    return problems, largest


def value_problems(
    predictions: list[dict], values: torch.Tensor, tolerance: float
) -> tuple[list[str], float]:
    """What is wrong with a regression's predictions, and the largest difference."""
    problems, largest = [], 0.0
    for line, (found, want) in enumerate(zip(predictions, values.tolist(), strict=True), start=1):
        if "value" not in found:
            problems.append(f"line {line}: no `value`, found {sorted(found)}")
            continue
        gap = abs(found["value"] - want)
        largest = max(largest, gap)
        if not gap <= tolerance * max(1.0, abs(want)):
            problems.append(f"line {line}: value {found['value']}, expected {want}")
    return problems, largest


def check_predictions(args: argparse.Namespace, model: PreTrainedModel) -> list[str]:
    """Compares the predictions with those of transformers."""
    texts, predictions = read_texts(args.texts), read_predictions(args.predictions)
    if len(texts) != len(predictions):
        return [f"{len(texts)} texts, but {len(predictions)} predictions"]
    logits = logits_of(model, args.model, texts, args.max_length)
    if model.config.num_labels == 1:
        problems, largest = value_problems(predictions, logits[:, 0], args.tolerance)
    else:
        names = [model.config.id2label[i] for i in range(model.config.num_labels)]
        if names == [f"LABEL_{i}" for i in range(len(names))]:
            print(f"warning: the config has no class names, only {names}")
        if model.config.label2id != {n: i for i, n in enumerate(names)}:
            return [f"label2id {model.config.label2id} is not the inverse of id2label {names}"]
        probabilities = logits.double().softmax(-1)
        problems, largest = class_problems(predictions, probabilities, names, args.tolerance)
    print(f"{len(texts)} texts, largest difference {largest:.3g}")
    return problems


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of all safetensors files in a folder."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors |= {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    return tensors


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same type, shape and bytes; unlike ==, tells -0 from 0 and takes NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(
        a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8)
    )


def check_reexport(model: PreTrainedModel, folder: Path, again: Path) -> list[str]:
    """Saves the model through transformers and compares the tensors of both folders."""
    if any(again.glob("*.safetensors")):
        return [f"{again} already holds weights: name an empty folder for --reexport"]
    model.save_pretrained(again)
    ours, theirs = read_tensors(folder), read_tensors(again)
    problems = []
    for title, names in (
        ("saved by jaxtune alone", ours.keys() - theirs.keys()),
        ("saved by transformers alone", theirs.keys() - ours.keys()),
    ):
        if names:
            shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            problems.append(f"{len(names)} tensors {title}: {shown}")
    shared = sorted(ours.keys() & theirs.keys())
    for name in (k for k in shared if not same_bytes(ours[k], theirs[k])):
        old, new = ours[name], theirs[name]
        was = f"{old.dtype} {list(old.shape)}, again {new.dtype} {list(new.shape)}"
        problems.append(f"{name}: bytes differ ({was})")
    print(f"re-export: {len(shared)} tensors compared byte by byte")
    return problems


def main() -> int:
    """Prints every problem; the exit code says whether there was one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder that jaxtune wrote")
    parser.add_argument("texts", type=Path, help="one text a line")
    parser.add_argument("predictions", type=Path, help="what jaxtune.predict wrote for them")
    parser.add_argument("--reexport", type=Path, metavar="DIR", help="save again, into this folder")
    parser.add_argument("--max-length", type=int, help="in tokens (default: the model's limit)")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model, problems = load(args.model)
    if args.reexport:  # before the predictions, which turn the model into float32
        problems += check_reexport(model, args.model, args.reexport)
    problems += check_predictions(args, model)
    for problem in problems:
        print(f"FAIL {problem}")
    print("FAILED" if problems else "OK")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
