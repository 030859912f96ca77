"""Part of benchmarks/growth.py: what data costs before the first step, as it grows.

Every case is a process of its own: seconds on the clock and the peak of its resident memory, which
the imports are a part of. `cold` begins with empty caches, `warm` is the same command again. Texts
are made by joining halves of texts of AG News; questions are those of `squad_small`, repeated; the
model is MiniLM. Peers are `datasets.map` of the tokenizer over batches, and the map of run_qa.
"""

import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from growth_memory import measure
from growth_table import Options, Row, minilm, own_command


class Cost(NamedTuple):
    """What a process took: seconds on the clock, and MB at the peak."""

    clock: float
    peak: float


def rows(options: Options) -> Iterator[Row]:
    """Rows, questions, classes and images."""
    yield from _of_rows(options)
    yield from _of_questions(options)
    yield from _of_classes(options)
    counts = (2000,) if options.quick else (10_000, 40_000)
    folders = [_write_images(options.scratch / f"images{n}", n) for n in counts]
    for state in ("cold", "warm"):
        of_size = [["images", folder, f"{folder}-{state}"] for folder in folders]
        if state == "warm":
            of_size = [["images", folder, f"{folder}-cold"] for folder in folders]
        title = f"{_spelt(counts)} images, {state}"
        yield from _compare(options, title, counts, of_size, fields=("clock",))


def _of_rows(options: Options) -> Iterator[Row]:
    counts = (50_000,) if options.quick else (50_000, 100_000, 500_000, 1_000_000)
    files = [
        _write_rows(options.data, options.scratch / f"rows{count}.csv", count) for count in counts
    ]
    for state in ("cold", "warm"):
        title = f"{_spelt(counts)} rows to the first batch, {state}"
        own = [["rows", file, f"{file}-tokens"] for file in files]
        peer = [["map_rows", file, f"{file}-map"] for file in files[:2]]  # more take minutes
        yield from _compare(options, title, counts, own, peer)
    yield from _whole_run(options, files[-1], counts[-1])


def _whole_run(options: Options, file: str, count: int) -> Iterator[Row]:
    """All of `jaxtune train` on the largest file: one step, and 64 texts scored."""
    fields = {
        "model.path": minilm(),
        "data.path": file,
        "data.max_eval_examples": 64,
        "train.num_steps": 1,
        "train.batch_size": 32,
    }
    for state in ("cold", "warm"):
        found: dict[str, list[Cost]] = {"ours": [], "before": []}
        for build in options.builds:
            key = "ours" if build is options.builds[-1] else "before"
            folder = Path(f"{file}-whole-{key}")
            shutil.rmtree(folder / "run", ignore_errors=True)
            cost = measure(*own_command(build, folder / "run", folder / "cache", fields))
            found[key].append(Cost(cost.seconds, cost.peak / 1e6))
        for field, unit in (("clock", "s"), ("peak", "MB")):
            values = {key: [getattr(cost, field) for cost in costs] for key, costs in found.items()}
            yield Row(f"{count:,} rows, a run of one step, {state}: {field}", unit, **values)


def _of_questions(options: Options) -> Iterator[Row]:
    data, scratch = str(options.data), options.scratch
    for state in ("cold", "warm"):
        own = [["questions", data, str(scratch / "windows")]]
        peer = [["map_questions", data, str(scratch / "map_qa")]]
        yield from _compare(options, f"9,000 questions, {state}", (), own, peer)


def _of_classes(options: Options) -> Iterator[Row]:
    counts = (100, 1000) if options.quick else (100, 1000, 10_000)
    for what, command in {
        "2,000 records": lambda n: ["classes", str(n), ""],
        "2,000 records, the likeliest 10": lambda n: ["classes", str(n), "10"],
        "scores of 4,000 rows": lambda n: ["scores", str(n)],
    }.items():
        own = [command(count) for count in counts]
        yield from _compare(options, f"{what} of {_spelt(counts)} classes", counts, own)


def _spelt(counts: Sequence[int]) -> str:
    return " ".join(f"{count:,}" for count in counts)


def _compare(
    options: Options,
    title: str,
    sizes: Sequence[int],
    own: list[list[str]],
    peer: list[list[str]] | None = None,
    fields: Sequence[str] = ("clock", "peak"),
) -> Iterator[Row]:
    """The same children of each build, each with its own caches, and of the peer."""
    found: dict[str, list[Cost]] = {"ours": [], "before": [], "peer": []}
    for i, command in enumerate(own):
        for build in options.builds:
            key = "ours" if build is options.builds[-1] else "before"
            *words, last = command
            cached = last.startswith("/")  # a folder for caches
            found[key].append(
                _measure([*words, f"{last}-{key}" if cached else last], build, options)
            )
        if peer and i < len(peer):
            found["peer"].append(_measure(peer[i], options.builds[-1], options))
    for field in fields:
        values = {key: [getattr(cost, field) for cost in costs] for key, costs in found.items()}
        yield Row(f"{title}: {field}", {"clock": "s", "peak": "MB"}[field], sizes=sizes, **values)


def _measure(command: list[str], tree: Path, options: Options) -> Cost:
    """Runs a child on a source tree and reads what it says of itself."""
    words = [sys.executable, __file__, *command]
    more = {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "true"}
    start = time.perf_counter()
    done = subprocess.run(
        words,
        env=os.environ | more,
        cwd=options.scratch,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Cost(time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1]))


def _told() -> None:
    """Ends a child: MB at the peak."""
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def _texts(data: Path, count: int) -> Iterator[list[str]]:
    """Rows of a text and its class: the first half of one text and the second of another."""
    with (data / "ag_news" / "train.csv").open(encoding="utf-8") as stream:
        rows = list(csv.reader(stream))[1:]
    rng = random.Random(0)
    for _ in range(count):
        (text, label), (other, _) = rng.choice(rows), rng.choice(rows)
        first, second = text.split(), other.split()
        words = first[: len(first) // 2] + second[len(second) // 2 :]
        yield [" ".join(words), label]


def _write_rows(data: Path, path: Path, count: int) -> str:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text", "label"], *_texts(data, count)])
    return str(path)


def _write_images(folder: Path, count: int) -> str:
    """Images of 32 x 32 pixels in 100 classes, no two of the same bytes."""
    import numpy as np
    from PIL import Image

    for i in range(count):
        file = folder / f"class{i % 100}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if i < 100:
            pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(file)
        else:
            shutil.copyfile(folder / f"class{i % 100}" / f"{i % 100}.png", file)
            with file.open("ab") as stream:
                stream.write(str(i).encode())  # past the end of the image
    return str(folder)


def _kept(task: str, cache: str) -> Any:
    """A task that keeps what is dear; of a tree before that, one that keeps tokens."""
    import gc

    from jaxtune.tasks import task as tasks
    from jaxtune.tasks.registry import find_task

    gc.set_threshold(50_000)  # as the commands do
    Path(cache).mkdir(exist_ok=True)
    keeping = getattr(tasks, "keeping", None) or tasks.keeping_tokens  # type: ignore[attr-defined]
    return keeping(find_task(task), Path(cache))


def _settings(path: str, **fields: Any) -> Any:
    from jaxtune.settings.data import DataSettings
    from jaxtune.settings.dicts import from_dict

    return from_dict(DataSettings, {"path": path, "validation_size": 0.05} | fields)


def _rows(path: str, cache: str) -> None:
    """From the csv to the first batch."""
    from jaxtune.run.config import load_config
    from jaxtune.run.console import Report
    from jaxtune.run.prepare import prepare

    _kept("classification", cache)
    values = {"model.path": str(minilm()), "data.path": path, "train.batch_size": "32"}
    run = prepare(load_config("agnews", values), Report(quiet=True), Path(cache))
    run.data.stream.collate(*next(iter(run.data.stream.indices())))
    _told()


def _questions(data: str, cache: str) -> None:
    """9,000 questions to windows of 384 tokens; the file is read before the clock of the others."""
    from jaxtune.data.sources.rows import read_data, take
    from jaxtune.data.text.tokens import load_tokenizer

    task = _kept("question_answering", cache)
    path = str(Path(data) / "squad_small" / "train-v2.0.json")
    settings = _settings(path, max_length=384, doc_stride=128, validation_size=0.01)
    rows = read_data(settings, task.data.reader).splits["train"]
    numbers = [i % len(rows.inputs) for i in range(9000)]
    import numpy as np

    rows = take(rows, np.array(numbers))
    task.data.encode(rows, load_tokenizer(minilm()), settings, iter)
    _told()


def _classes(count: str, top_k: str) -> None:
    """Logits to lines of JSON."""
    import numpy as np

    from jaxtune.tasks import classification

    outputs = np.random.default_rng(0).normal(size=(2000, int(count))).astype(np.float32)
    names = tuple(f"class {i}" for i in range(int(count)))
    more = {"top_k": int(top_k)} if top_k else {}
    with open(os.devnull, "w") as stream:
        for record in classification.decode(outputs, None, names, **more):
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    _told()


def _scores(count: str) -> None:
    from types import SimpleNamespace

    import numpy as np

    from jaxtune.tasks import classification

    rng, n, c = np.random.default_rng(0), 4000, int(count)
    outputs = np.zeros((n, c), np.float32)
    labels = rng.integers(0, c, n).astype(np.int32)
    guesses = np.where(rng.random(n) < 0.5, labels, rng.integers(0, c, n))
    outputs[np.arange(n), guesses] = 1
    classification.scores({}, outputs, SimpleNamespace(labels=labels))
    _told()


def _images(folder: str, cache: str) -> None:
    """Folders to checked rows in splits."""
    from jaxtune.data.sources.rows import read_data

    task = _kept("image_classification", cache)
    read_data(_settings(folder), task.data.reader)
    _told()


def _map_rows(path: str, cache: str) -> None:
    """What run_glue does before its first step: csv, then a map of the tokenizer over batches."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(minilm()))
    rows: Any = datasets.load_dataset("csv", data_files=path, cache_dir=cache)
    rows["train"].map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True
    )
    _told()


def _map_questions(data: str, cache: str) -> None:
    """The map of run_qa's `prepare_train_features`, without its search for the labels."""
    import datasets
    from transformers import AutoTokenizer

    path = Path(data) / "squad_small" / "train-v2.0.json"
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    texts = [
        {"question": asked["question"], "context": part["context"]}
        for article in articles
        for part in article["paragraphs"]
        for asked in part["qas"]
    ]
    tokenizer = AutoTokenizer.from_pretrained(str(minilm()))

    def prepare(batch: Any) -> Any:
        return tokenizer(
            batch["question"],
            batch["context"],
            truncation="only_second",
            max_length=384,
            stride=128,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )

    rows = datasets.Dataset.from_list([texts[i % len(texts)] for i in range(9000)])
    Path(cache).mkdir(exist_ok=True)
    rows.map(
        prepare,
        batched=True,
        remove_columns=rows.column_names,
        cache_file_name=str(Path(cache) / "windows.arrow"),
        new_fingerprint="windows",
    )
    _told()


_CHILDREN: dict[str, Callable[..., None]] = {
    "rows": _rows,
    "questions": _questions,
    "classes": _classes,
    "scores": _scores,
    "images": _images,
    "map_rows": _map_rows,
    "map_questions": _map_questions,
}


if __name__ == "__main__":
    _CHILDREN[sys.argv[1]](*sys.argv[2:])
