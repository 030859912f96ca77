"""Part of benchmarks/growth.py: short jobs whole, from the command to the written model.

One epoch with compiling and evaluation counted, empty caches and then those that the first job
left. Questions are as short as those of TREC, of six classes by their question word, made from
`squad_small`; rows of AG News are cut at 128 tokens. The model is MiniLM, in batches of 32. The
Trainer pads each batch to its longest text, with fused AdamW, the same epoch, evaluation and file.
Seconds of the processor are what other work on the machine disturbs least.

Last, `predict` on one text, from the command to its end: the medians of starts by turns, each build
with caches that a start before them filled.
"""

import csv
import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from growth_memory import Found, measure
from growth_table import PEERS, Options, Row, minilm, own_command

WORDS = ("what", "who", "when", "how", "where")


def rows(options: Options) -> Iterator[Row]:
    """Questions with both caches, then 2,000 longer texts in both dtypes."""
    write_questions(options.data, options.scratch / "questions")
    write_news(options.data, options.scratch / "news")
    for name, count, dtypes in (("questions", 2500, ("float32",)), ("news", 2000, DTYPES)):
        for dtype in dtypes:
            yield from _job(options, name, count, dtype)
    yield from _predictions(options)


DTYPES = ("float32", "bfloat16")
_STARTS = 5  # of each build that are counted


def _job(options: Options, name: str, count: int, dtype: str) -> Iterator[Row]:
    data, title = options.scratch / name, f"{count:,} {name}, one epoch, {dtype}, whole command"
    found: dict[tuple[str, str], Found] = {}
    for state in ("cold", "warm"):
        for build in options.builds:
            key = "ours" if build is options.builds[-1] else "before"
            found[key, state] = _own(build, data, options.scratch / f"{key}-{name}-{dtype}", dtype)
        if options.torch:
            job = {"model": str(minilm()), "data": str(data), "dtype": dtype}
            job["output"] = str(options.scratch / "trainer")
            command = [options.torch, str(PEERS / "trainer_job.py"), json.dumps(job)]
            found["peer", state] = measure(command, dict(os.environ))
    for state in ("cold", "warm"):
        for field, unit in (("cpu", "CPU s"), ("seconds", "s")):
            values: dict[str, Any] = {
                key: [getattr(found[key, state], field)] if (key, state) in found else ()
                for key in ("ours", "before", "peer")
            }
            yield Row(f"{title}, {state} caches", unit, **values)


def _own(tree: Path, data: Path, folder: Path, dtype: str) -> Found:
    """A run of jaxtune, whose caches stay in the folder."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    flags = {
        "model.path": minilm(),
        "data.path": data,
        "train.num_epochs": 1,
        "train.batch_size": 32,
        "precision.compute_dtype": dtype,
    }
    command, environment = own_command(tree, folder / "run", folder / "cache", flags)
    return measure(command, environment, tree)


def _predictions(options: Options) -> Iterator[Row]:
    """One text by the model that the questions gave, which each build reads."""
    model = options.scratch / "ours-questions-float32" / "run" / "model"
    table = options.scratch / "one.csv"
    table.write_text("text\nwhen was the bridge built\n", encoding="utf-8")
    found: dict[str, list[Found]] = {"before": [], "ours": []}
    for repeat in range(_STARTS + 1):
        for build in options.builds:
            key = "ours" if build is options.builds[-1] else "before"
            caches = options.scratch / f"{key}-one"
            _, environment = own_command(build, caches, caches, {})
            environment["PYTHONPYCACHEPREFIX"] = str(caches / "bytecode")  # no tree is written to
            flags = [f"--model={model}", f"--input={table}", f"--output={caches / 'labels.jsonl'}"]
            started = measure([sys.executable, "-m", "jaxtune.predict", *flags], environment, build)
            if repeat:
                found[key].append(started)
    for field, unit in (("cpu", "CPU s"), ("seconds", "s")):
        values: dict[str, Any] = {
            key: [statistics.median(getattr(one, field) for one in starts)] if starts else ()
            for key, starts in found.items()
        }
        yield Row("predict of one text, warm caches, whole command", unit, **values)


def write_questions(data: Path, folder: Path) -> None:
    """2,500 questions of about ten words to learn, and 500 to be tested on."""
    file = data / "squad_small" / "train-v2.0.json"
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    parts = (part for article in articles for part in article["paragraphs"])
    texts = sorted({asked["question"].strip() for part in parts for asked in part["qas"]})
    random.Random(0).shuffle(texts)
    made = [
        (text, next((word for word in text.lower().split() if word in WORDS), "other"))
        for text in texts
    ]
    _write(folder, {"train": made[:2500], "test": made[2500:3000]})


def write_news(data: Path, folder: Path) -> None:
    """2,000 rows of AG News to learn, and 500 to be tested on."""
    with (data / "ag_news" / "train.csv").open(encoding="utf-8", newline="") as stream:
        made = [(row[0], row[1]) for row in list(csv.reader(stream))[1:]]
    random.Random(0).shuffle(made)
    _write(folder, {"train": made[:2000], "test": made[2000:2500]})


def _write(folder: Path, splits: dict[str, list[tuple[str, str]]]) -> None:
    folder.mkdir()
    for split, part in splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *part])
