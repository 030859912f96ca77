"""Workdirs of finished runs of each task, written by hand: no model is trained or run."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from jaxtune.data.sources.class_sets import of_flags
from jaxtune.data.text.squad import Answer, Question
from jaxtune.data.text.windows import Window
from jaxtune.data.text.word_tokens import Words
from jaxtune.data.text.words import Tags, from_words
from jaxtune.run import predictions_folder
from jaxtune.run.keeper import keep
from jaxtune.run.setup import Held
from jaxtune.settings import Settings
from jaxtune.settings.data import AnswerSettings, ColumnSettings
from jaxtune.settings.dicts import to_json
from jaxtune.tasks.registry import TASKS

EVIL = "<script>alert('x')</script> & $x_1$"
NAMES = ["good", "bad", EVIL]
TEXT = f"{EVIL} \x00\ud800 " + "a long text " * 60


def random(seed=0):
    return np.random.default_rng(seed)


def classification(n=60, c=3):
    rng = random()
    logits = rng.normal(size=(n, c)).astype(np.float32) * 3
    labels = np.where(rng.random(n) < 0.6, logits.argmax(1), rng.integers(0, c, n))
    return logits, SimpleNamespace(labels=labels.astype(np.int32), lengths=rng.integers(3, 40, n))


def multi_label(n=60, c=3):
    rng = random()
    logits = rng.normal(size=(n, c)).astype(np.float32) * 2
    flags = (logits + rng.normal(size=(n, c)) * 2 > 0).astype(np.float32)
    return logits, SimpleNamespace(labels=of_flags(flags), lengths=rng.integers(3, 40, n))


def regression(n=60, k=1):
    rng = random()
    targets = rng.normal(size=(n, k)).astype(np.float32)
    outputs = (targets + rng.normal(size=(n, k)) * 0.3).astype(np.float32)
    return outputs, SimpleNamespace(labels=targets, lengths=rng.integers(3, 40, n))


TAGS = {0: "O", 1: "B-person", 2: "I-person", 3: "B-place", 4: "I-place"}


def token_classification(n=30):
    rng, info, outputs = random(), [], []
    for _ in range(n):
        words = [EVIL, *["word"] * int(rng.integers(1, 9))]
        classes = rng.integers(0, 5, len(words)).astype(np.int32)
        tokens = np.arange(1, len(words) + 1)
        logits = rng.normal(size=(len(words) + 2, 5)).astype(np.float32)
        logits[tokens, classes] += 2 * (rng.random(len(words)) < 0.7)
        tokens[-1] = -1  # cut
        info.append(Words(from_words(words), tokens, Tags(classes, TAGS)))
        outputs.append(logits)
    lengths = np.array([len(part) for part in outputs])
    return outputs, SimpleNamespace(info=info, lengths=lengths)


def question_answering(n=30):
    rng, info, outputs = random(), [], []
    context = f"{EVIL} one two three four"
    spans = np.array([(context.index(w), context.index(w) + len(w)) for w in context.split()[2:]])
    rules = AnswerSettings(max_answer_length=3, n_best=5, allow_no_answer=True)
    for i in range(n):
        start, end = spans[int(rng.integers(len(spans)))]
        answers = (Answer(context[start:end], int(start)),) if i % 3 else ()
        asked = Question(str(i), f"{EVIL}?", context + "." * i, True)
        info.append(Window(i, asked, answers, 2, spans, rules))
        outputs.append(rng.normal(size=(3 + len(spans), 2)).astype(np.float32) * 2)
    return outputs, SimpleNamespace(info=info, lengths=np.full(n, 3 + len(spans)))


class _Reader:
    backend_tokenizer = SimpleNamespace(decode=lambda ids: f"{EVIL} {ids}")


def causal_lm(n=30):
    rng = random()
    lengths = rng.integers(2, 9, n)
    outputs = np.stack([-rng.gamma(2, 1, n) * (lengths - 1), lengths - 1], 1).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = SimpleNamespace(input_ids=np.arange(offsets[-1]), offsets=offsets)
    return outputs, SimpleNamespace(lengths=lengths, tokens=tokens, info=range(n))


MADE = {
    "classification": classification,
    "multi_label": multi_label,
    "regression": regression,
    "token_classification": token_classification,
    "question_answering": question_answering,
    "causal_lm": causal_lm,
}


def kept_of(task, split="test", made=None):
    outputs, examples = made or MADE[task]()
    count = len(examples.lengths)
    texts = None
    if task in ("classification", "multi_label", "regression"):
        texts = [(f"{i} {TEXT}",) for i in range(count)]
    held = Held(split, texts, np.arange(2, count + 2))
    return keep(TASKS[task], outputs, examples, held, 4, _Reader(), ColumnSettings())


def metrics():
    for step in (2, 4, 6):
        yield {"step": step, "train/loss": 1 / step, "train/learning_rate": 0.1 / step}
        yield {"step": step, "validation/loss": 1.2 / step, "validation/accuracy": step / 10}


def write_workdir(tmp_path, task, split="test", card=None, kept=None) -> Path:
    workdir = tmp_path / "secretplace" / "run"
    (workdir / "model").mkdir(parents=True)
    model, data = tmp_path / "secretplace" / "base model", tmp_path / "secretplace" / "rows"
    config = json.loads(to_json(Settings())) | {"task": task}
    config["model"] |= {"path": str(model), "sha256": "a" * 64}
    config["data"] |= {"path": str(data), "sha256": "b" * 64}
    config["tuning"] |= {"name": "lora", "rank": 4}
    names = [f"class {i}" for i in range(5000)] if kept is not None else NAMES
    results = {
        "task": task,
        "scores": {"validation": {"loss": 0.5, "accuracy": 0.6}, split: {"loss": 0.4, "f1": None}},
        "best_metric": "accuracy",
        "best_step": 4,
        "steps": 6,
        "epochs": 2.0,
        "seconds": 3.5,
        "step_flops": 1e9,
        "full_step_flops": 2e9,
        "trainable_parameters": 10,
        "parameters": 100,
        "classes": names if "classification" in task or task == "multi_label" else [],
        "versions": {"jaxtune": "0.1", "python": "3.11"},
        "notes": [f"{data}/test.csv has no labels", "3 of 9 texts were cut to 16 tokens"],
    }
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "results.json").write_text(json.dumps(results))
    lines = "".join(json.dumps(row) + "\n" for row in metrics())
    (workdir / "metrics.jsonl").write_text(lines)
    (workdir / "model" / "config.json").write_text("{}")
    (workdir / "model" / "jaxtune.json").write_text(json.dumps({"task": task} | (card or {})))
    predictions_folder.write(workdir, kept or kept_of(task, split))
    return workdir
