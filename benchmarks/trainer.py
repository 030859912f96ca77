"""The Trainer of transformers on torch, with the recipe and the rows of a run of jaxtune.

    pip install torch==2.13.0 transformers==5.24.0 accelerate seqeval scikit-learn scipy pillow
    python benchmarks/trainer.py --run=runs/ner/seed0 --seeds=0,1,2

It imports nothing of jaxtune: the run's config.json names the model, the data and the recipe, and
the files are read here again, by plain readers for the layouts of WNUT-17, SQuAD, STS-B and folders
of images. Each epoch is evaluated on the validation rows and the best one scores the test rows, as
in the run; the table has the run's own scores beside the Trainer's.
"""
# pyright: reportMissingImports=false

import argparse
import csv
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


class Rows(Dataset):
    """Examples in a list, as the Trainer takes them."""

    def __init__(self, rows: list[Any]) -> None:
        """Keeps them."""
        self.rows = rows

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        """Example i, made anew where it is a function."""
        row = self.rows[i]
        return row() if callable(row) else row


def split_files(folder: Path) -> dict[str, Path]:
    """The file of each split, whose name has one of the words for it."""
    found = {}
    for split, words in SPLITS.items():
        for file in sorted(folder.iterdir()):
            if any(word in file.name.lower() for word in words):
                found.setdefault(split, file)
    return found


SPLITS = {"train": ("train",), "validation": ("dev", "eval", "valid"), "test": ("test",)}


# --- names in texts -------------------------------------------------------------------------


def read_conll(file: Path) -> list[tuple[list[str], list[str]]]:
    """Words and tags of each sentence."""
    found = []
    for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8").replace("\r", "")):
        lines = [line.split("\t") if "\t" in line else line.split() for line in block.split("\n")]
        lines = [line for line in lines if len(line) >= 2]
        if lines:
            found.append(([line[0] for line in lines], [line[-1] for line in lines]))
    return found


def names_task(settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Token classification, scored by seqeval over all words of the files."""
    from seqeval import metrics

    files = split_files(Path(settings["data"]["path"]))
    raw = {split: read_conll(file) for split, file in files.items()}
    tags = sorted({tag for part in raw.values() for _, row in part for tag in row})

    def encode(words: list[str], labels: list[str], places: bool = False) -> dict[str, Any]:
        limit = settings["data"]["max_length"]
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=limit)
        row: list[int] = []
        last = None
        for place in encoded.word_ids():
            first = place is not None and place != last
            row.append(tags.index(labels[place or 0]) if first else -100)
            last = place
        more = {"places": encoded.word_ids()} if places else {}
        return {**encoded, "labels": row, **more}

    def score(split: str, outputs: np.ndarray) -> dict[str, float]:
        predicted = []
        for (words, labels), row in zip(raw[split], outputs, strict=True):
            encoded = encode(words, labels, places=True)
            scored = [i for i, label in enumerate(encoded["labels"]) if label != -100]
            guesses = iter([tags[int(np.argmax(row[i]))] for i in scored])
            has_token = {place for place in encoded["places"] if place is not None}
            predicted.append([next(guesses) if i in has_token else "O" for i in range(len(words))])
        gold = [labels for _, labels in raw[split]]
        f1: Any = metrics.f1_score(gold, predicted)
        return {"f1": float(f1)}

    return {
        "rows": {s: [encode(*row) for row in part] for s, part in raw.items()},
        "model": "AutoModelForTokenClassification",
        "config": {"num_labels": len(tags)},
        "collator": DataCollatorForTokenClassification(tokenizer),
        "score": score,
    }


# --- answers --------------------------------------------------------------------------------


def read_squad(file: Path) -> list[dict[str, Any]]:
    """Questions with context and answers."""
    content = json.loads(file.read_text(encoding="utf-8"))["data"]
    return [
        {**question, "context": paragraph["context"]}
        for article in content
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def make_windows(row: dict[str, Any], data: dict[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """The windows of a question, each with the tokens of the first answer if it holds it."""
    encoded = tokenizer(
        row["question"],
        row["context"],
        truncation="only_second",
        max_length=data["max_length"],
        stride=data["doc_stride"],
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    parts: list[dict[str, Any]] = []
    for i, offsets in enumerate(encoded["offset_mapping"]):
        ids = encoded.sequence_ids(i)
        spans: list[Any] = [o if kind == 1 else None for o, kind in zip(offsets, ids, strict=True)]
        start = end = 0
        for answer in row["answers"][:1]:
            first, last = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            inside = [k for k, o in enumerate(spans) if o and o[0] < last and o[1] > first]
            if inside and spans[inside[0]][0] <= first and spans[inside[-1]][1] >= last:
                start, end = inside[0], inside[-1]
        part = {name: encoded[name][i] for name in tokenizer.model_input_names if name in encoded}
        parts.append({**part, "start_positions": start, "end_positions": end, "spans": spans})
    return parts


def find_answer(row: dict[str, Any], parts: list[Any], outputs: list[Any], settings: Any) -> str:
    """The span of the highest sum of logits; empty where no answer beats it by the threshold."""
    best, text, null = -np.inf, "", np.inf
    for part, (starts, ends) in zip(parts, outputs, strict=True):
        null = min(null, starts[0] + ends[0])
        places = [k for k, span in enumerate(part["spans"]) if span]
        for i in places:
            for j in range(i, min(i + settings["max_answer_length"], places[-1] + 1)):
                if starts[i] + ends[j] > best:
                    best = starts[i] + ends[j]
                    text = row["context"][part["spans"][i][0] : part["spans"][j][1]].strip()
    none = settings["allow_no_answer"] and null - best > settings["no_answer_threshold"]
    return "" if none else text


def answers_task(settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Question answering, scored by the official definition (squad_scores.py beside this)."""
    import squad_scores

    data = settings["data"]
    raw = {split: read_squad(file) for split, file in split_files(Path(data["path"])).items()}
    cut = {
        split: [make_windows(row, data, tokenizer) for row in part] for split, part in raw.items()
    }

    def score(split: str, outputs: Any) -> dict[str, float]:
        pairs = iter(list(zip(*outputs, strict=True)))
        answers = {
            row["id"]: find_answer(row, parts, [next(pairs) for _ in parts], data)
            for row, parts in zip(raw[split], cut[split], strict=True)
        }
        questions = {row["id"]: [a["text"] for a in row["answers"]] for row in raw[split]}
        scores = squad_scores.evaluate(questions, answers)
        return {"f1": scores["f1"] / 100, "exact_match": scores["exact"] / 100}

    def without_spans(part: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in part.items() if name != "spans"}

    return {
        "rows": {s: [without_spans(p) for parts in c for p in parts] for s, c in cut.items()},
        "model": "AutoModelForQuestionAnswering",
        "config": {},
        "collator": DataCollatorWithPadding(tokenizer),
        "score": score,
    }


# --- pairs of sentences, images -------------------------------------------------------------


def pairs_task(settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Regression on STS-B's files, scored by Pearson's correlation."""
    from scipy import stats

    data, raw = settings["data"], {}
    for split, file in split_files(Path(data["path"])).items():
        with open(file, encoding="utf-8", newline="") as handle:
            lines = list(csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
        header = lines.pop(0) if "sentence1" in lines[0] else data["column_names"]
        wanted = [header.index(name) for name in ("sentence1", "sentence2", "score")]
        raw[split] = [[line[i] for i in wanted] for line in lines]

    def encode(one: str, other: str, target: str) -> dict[str, Any]:
        encoded = tokenizer(one, other, truncation=True, max_length=data["max_length"])
        return {**encoded, "labels": float(target)}

    def score(split: str, outputs: np.ndarray) -> dict[str, float]:
        targets = [float(row[2]) for row in raw[split]]
        correlation: Any = stats.pearsonr(outputs[:, 0], targets)
        return {"pearson": float(correlation.statistic)}

    return {
        "rows": {s: [encode(*row) for row in part] for s, part in raw.items()},
        "model": "AutoModelForSequenceClassification",
        "config": {"num_labels": 1},
        "collator": DataCollatorWithPadding(tokenizer),
        "score": score,
    }


def images_task(settings: dict[str, Any], processor: dict[str, Any]) -> dict[str, Any]:
    """Image classification, padded crops and mirror images in training, scored by accuracy.

    Rows held out of train for validation are not those of the run, but as many.
    """
    from PIL import Image

    folder, data = Path(settings["data"]["path"]), settings["data"]
    classes = sorted(p.name for p in (folder / "train").iterdir())
    files = {
        split: [(file, i) for i, name in enumerate(classes) for file in
                sorted((folder / split / name).iterdir())]
        for split in ("train", "test")
    }  # fmt: skip
    order = np.random.default_rng(0).permutation(len(files["train"]))
    held = round(data["validation_size"] * len(order))
    train = files["train"]
    files["validation"] = [train[i] for i in order[:held]]
    files["train"] = [train[i] for i in order[held:]]
    size = (processor["size"]["width"], processor["size"]["height"])
    mean, std = (np.array(processor[f"image_{name}"], np.float32) for name in ("mean", "std"))

    def pixels(file: Path, training: bool) -> torch.Tensor:
        image = Image.open(file).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        values = np.asarray(image, np.float32)
        if training and data["augmentation"]["crop"] == "pad":
            pad = [side // 8 for side in size]
            padded = np.pad(values, ((pad[1], pad[1]), (pad[0], pad[0]), (0, 0)))
            y, x = (np.random.randint(2 * p + 1) for p in reversed(pad))
            values = padded[y : y + size[1], x : x + size[0]]
        if training and data["augmentation"]["flip"] and np.random.random() < 0.5:
            values = values[:, ::-1]
        return torch.from_numpy(((values / 255.0 - mean) / std).transpose(2, 0, 1).copy())

    def example(file: Path, label: int, training: bool) -> Any:
        return lambda: {"pixel_values": pixels(file, training), "labels": label}

    def score(split: str, outputs: np.ndarray) -> dict[str, float]:
        labels = np.array([label for _, label in files[split]])
        return {"accuracy": float((outputs.argmax(axis=-1) == labels).mean())}

    return {
        "rows": {s: [example(*row, s == "train") for row in part] for s, part in files.items()},
        "model": "AutoModelForImageClassification",
        "config": {"num_labels": len(classes)},
        "collator": None,
        "score": score,
    }


TASKS = {
    "token_classification": names_task,
    "question_answering": answers_task,
    "regression": pairs_task,
    "image_classification": images_task,
}


def train(settings: dict[str, Any], task: dict[str, Any], seed: int) -> dict[str, float]:
    """Scores of the best epoch, by split and name."""
    transformers.set_seed(seed)
    optimizer, recipe, path = settings["optimizer"], settings["train"], settings["model"]["path"]
    config = AutoConfig.from_pretrained(path, **task["config"])
    kind = getattr(transformers, task["model"])
    if settings["model"]["from_scratch"]:
        model = kind.from_config(config)
    else:
        model = kind.from_pretrained(path, config=config, ignore_mismatched_sizes=True)
    rows = {split: Rows(part) for split, part in task["rows"].items()}
    steps = -(-len(rows["train"]) // recipe["batch_size"]) * recipe["num_epochs"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=recipe["num_epochs"],
            per_device_train_batch_size=recipe["batch_size"],
            per_device_eval_batch_size=recipe["eval_batch_size"],
            learning_rate=optimizer["learning_rate"],
            lr_scheduler_type=optimizer["schedule"],
            warmup_steps=round(optimizer["warmup_fraction"] * steps),
            weight_decay=optimizer["weight_decay"],
            max_grad_norm=optimizer["clip_norm"] or 0.0,
            adam_epsilon=optimizer["eps"],
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model=recipe["best_metric"],
            report_to=[],
            seed=seed,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            data_collator=task["collator"],
            compute_metrics=lambda p: task["score"]("validation", p.predictions),
        )
        trainer.train()
        trainer.compute_metrics = None  # it scores the validation rows
        found = {}
        for split in ("validation", "test"):
            if split in rows:
                scores = task["score"](split, trainer.predict(rows[split]).predictions)
                found |= {f"{split} {name}": value for name, value in scores.items()}
    return found


def main() -> None:
    """Trains with every seed and prints one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, help="the workdir of a finished run")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    run = Path(arguments.run)
    settings = json.loads((run / "config.json").read_text())
    path = Path(settings["model"]["path"])
    if settings["task"] == "image_classification":
        inputs = json.loads((path / "preprocessor_config.json").read_text())
    else:
        inputs = AutoTokenizer.from_pretrained(path)
        inputs.backend_tokenizer.no_truncation()
        inputs.backend_tokenizer.no_padding()
    task = TASKS[settings["task"]](settings, inputs)
    results = json.loads((run / "results.json").read_text())
    settings["train"]["best_metric"] = results["best_metric"]
    table: dict[str, list[float]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        scores = train(settings, task, seed)
        print(f"seed {seed}: {scores}", flush=True)
        for name, value in scores.items():
            table.setdefault(name, []).append(value)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; {run}")
    for name, values in table.items():
        split, _, score = name.partition(" ")
        each = "  ".join(f"{value:.4f}" for value in values)
        own = results["scores"].get(split, {}).get(score, float("nan"))
        print(f"{name:>24}  mean {statistics.mean(values):.4f}  ({each})  this run {own:.4f}")


if __name__ == "__main__":
    main()
