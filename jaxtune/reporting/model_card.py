"""README.md of a model folder: facts of the run, for people and hubs; one run, one text."""

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtune.reporting.class_rows import class_rows
from jaxtune.reporting.class_rows import name as class_name
from jaxtune.reporting.class_tables import Scores, single_scores
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.parts import number
from jaxtune.reporting.places import name_of, without_paths

_PIPELINES: Mapping[str, str] = {
    **dict.fromkeys(("classification", "multi_label", "regression"), "text-classification"),
    **{"few_shot": "text-classification", "embedding": "sentence-similarity"},
    **{"token_classification": "token-classification", "causal_lm": "text-generation"},
    **{"question_answering": "question-answering", "masked_lm": "fill-mask"},
    **{"image_classification": "image-classification", "reranking": "text-ranking"},
    "multiple_choice": "multiple-choice",
}
_AUTO = {
    **dict.fromkeys(("classification", "multi_label", "regression"), "SequenceClassification"),
    **{"token_classification": "TokenClassification", "causal_lm": "CausalLM"},
    **{"question_answering": "QuestionAnswering", "masked_lm": "MaskedLM"},
    **{"image_classification": "ImageClassification", "multiple_choice": "MultipleChoice"},
    "reranking": "SequenceClassification",
}
_SENTENCES = ("embedding", "few_shot")
"""Tasks whose folders are those of sentence-transformers."""

_CUT = ("SequenceClassification", "TokenClassification", "MultipleChoice")
"""Whose texts lose what is beyond `max_length`: others are parted."""

_INPUTS = {
    "question_answering": '[{"question": "...", "context": "..."}]',
    "image_classification": '["image.png"]',
    "reranking": '[("query", "passage")]',
    "multiple_choice": '[("prompt", ["one choice", "another"])]',
}
_METRICS = {
    **{"macro_f1": "f1", "micro_f1": "f1", "spearman": "spearmanr", "pearson": "pearsonr"},
    **{"mcc": "matthews_correlation", "subset_accuracy": "accuracy"},
}
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_FEW = 20  # rows of a class, of which a score says little
_SHOWN = 10


def render(facts: Facts) -> str:
    """The card's text, with its fields in front."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    task, title = str(facts.results["task"]), facts.workdir.resolve().name
    data_name, data_id = _data(facts)
    split, scores = _scores(facts)
    found = [
        EvalResult(
            task_type=_PIPELINES.get(task, task),
            dataset_type=data_id or data_name,
            dataset_name=data_name,
            dataset_config=facts.config["data"].get("name"),
            dataset_split=split,
            metric_type=_METRICS.get(name, name),
            metric_name=name,
            metric_value=round(value, 6),
        )
        for name, value in scores.items()
        if value is not None and name != "loss"
    ]
    own = (facts.workdir / "model" / "adapter_config.json").exists()
    head = facts.config["model"].get("head")
    fields = ModelCardData(
        model_name=title,
        base_model=_hub_id(facts.config["model"]["path"]),
        datasets=[data_id] if data_id else None,
        library_name="jaxtune" if own or head else _library(task),
        pipeline_tag=_PIPELINES.get(task),
        tags=["jaxtune", facts.config["tuning"]["name"]],
        eval_results=found,
    )
    parts = [
        f"# {title}",
        _summary(facts, data_name),
        "## Scores",
        _table(("score", split), [(name, number(value)) for name, value in scores.items()]),
        *_chosen(facts, split),
        "## Use",
        _use(task, own, head),
        "## Training",
        _table(("setting", "value"), _training(facts)),
        "## Limitations",
        "\n".join(f"- {line}" for line in _limits(facts, split)),
    ]
    body = "\n\n".join(parts)
    return str(ModelCard(f"---\n{fields.to_yaml()}\n---\n\n{body}\n"))


def _summary(facts: Facts, data_name: str) -> str:
    base, task = name_of(facts.config["model"]["path"]), facts.results["task"].replace("_", " ")
    classes = facts.results.get("classes") or []
    of_classes = task.endswith(("classification", "few shot"))
    told = f" with {len(classes)} classes" if classes and of_classes else ""
    return (
        f"{_plain(base)}, fine-tuned for {task}{told} on {_plain(data_name)}, by jaxtune"
        f" {facts.results.get('versions', {}).get('jaxtune', '')}."
    ).replace(" .", ".")


def _scores(facts: Facts) -> tuple[str, Mapping[str, float | None]]:
    """The split that a report is on, and its scores."""
    scores = facts.results["scores"]
    split = "test" if "test" in scores else "validation"
    return split, scores.get(split, {})


def _chosen(facts: Facts, split: str) -> list[str]:
    """What is to be known of scores on the split that chose the step."""
    if split == "test":
        return []
    metric = facts.results.get("best_metric")
    return [f"The best step was chosen by {metric} on these same rows; expect a little less."]


def _library(task: str) -> str:
    """Whose files a folder has."""
    return "sentence-transformers" if task in _SENTENCES else "transformers"


def _use(task: str, own: bool, head: str | None) -> str:
    inputs, by = _INPUTS.get(task, '["..."]'), f', head="{head}"' if head else ""
    ours = f'import jaxtune as jt\n\njt.load("FOLDER_OR_HUB_ID"{by}).predict({inputs})'
    if own:
        return (
            f"```python\n{ours}\n```\n\nThe folder holds what was trained, without the base model."
        )
    if head:
        return f"```python\n{ours}\n```\n\nThe head is code that is not in the folder."
    if task in _SENTENCES:
        theirs = (
            "from sentence_transformers import SentenceTransformer\n\n"
            f'SentenceTransformer("FOLDER_OR_HUB_ID").encode({inputs})'
        )
        told = "That gives the logits of the classes.\n\n" if task == "few_shot" else ""
        return f"```python\n{theirs}\n```\n\n{told}```python\n{ours}\n```"
    auto = f"AutoModelFor{_AUTO.get(task, 'SequenceClassification')}"
    theirs = (
        f'from transformers import {auto}\n\nmodel = {auto}.from_pretrained("FOLDER_OR_HUB_ID")'
    )
    return f"```python\n{theirs}\n```\n\n```python\n{ours}\n```"


def _training(facts: Facts) -> list[tuple[str, str]]:
    config, results = facts.config, facts.results
    train, optimizer = config["train"], config["optimizer"]
    trained, total = results.get("trainable_parameters"), results.get("parameters")
    rows = [
        ("strategy", config["tuning"]["name"]),
        ("trainable parameters", f"{trained:,} of {total:,}" if trained and total else None),
        ("steps", results.get("steps")),
        ("best step", results.get("best_step")),
        ("batch size", train.get("batch_size")),
        ("optimizer", optimizer.get("name")),
        ("learning rate", f"{optimizer.get('learning_rate'):g}, {optimizer.get('schedule')}"),
        ("weight decay", optimizer.get("weight_decay")),
        ("decay of the moving average of weights", optimizer.get("ema_decay")),
        ("head", config["model"].get("head")),
        ("compute dtype", config["precision"].get("compute_dtype")),
        ("seed", config["seed"]),
        ("max_length", None if _reads_images(facts) else config["data"].get("max_length")),
        ("SHA-256 of the base weights", config["model"].get("sha256")),
        ("SHA-256 of the data", config["data"].get("sha256")),
    ]
    return [(key, str(value)) for key, value in rows if value is not None]


def _limits(facts: Facts, split: str) -> list[str]:
    """What follows from the data, and nothing that does not."""
    lines = [without_paths(note, facts) for note in facts.results.get("notes", [])]
    lines += _weak_classes(facts, split)
    task = facts.results["task"]
    if task in _SENTENCES or _AUTO.get(task) in _CUT:
        lines.append(f"Texts are cut to {facts.config['data'].get('max_length')} tokens.")
    lines.append("The language and the license of model and data are not known to jaxtune.")
    return [_plain(line) for line in lines]


def _weak_classes(facts: Facts, split: str) -> list[str]:
    """Classes of few rows, and those that are hardly found."""
    kept, names = facts.kept, facts.results.get("classes") or []
    if kept is None or kept.task not in ("classification", "few_shot", "image_classification"):
        return []
    rows = class_rows(kept, names)
    scores: Scores = single_scores(rows.labels, rows.predicted, len(names))
    few = np.flatnonzero(scores.support < _FEW)
    weak = np.flatnonzero((scores.support >= _FEW) & (scores.recall < 0.5))
    lines = []
    if len(few):
        told = f"{len(few)} of {len(names)} classes have fewer than {_FEW} rows in {split}"
        lines.append(f"{told}, so their scores say little: {_listed(names, few)}.")
    if len(weak):
        lines.append(
            f"Less than half of the rows of these classes are found: {_listed(names, weak)}."
        )
    return lines


def _listed(names: Sequence[str], places: np.ndarray) -> str:
    shown = ", ".join(class_name(names, i)[:60] for i in places[:_SHOWN].tolist())
    return f"{shown} and {len(places) - _SHOWN} more" if len(places) > _SHOWN else shown


def _data(facts: Facts) -> tuple[str, str | None]:
    """What the data is called, and its hub id, if it is one: local files have a digest."""
    data = facts.config["data"]
    is_hub = data.get("sha256") is None and _HUB_ID.fullmatch(data["path"]) is not None
    return name_of(data["path"]), data["path"] if is_hub else None


def _hub_id(path: str) -> str | None:
    """The path, where it is the id of a model and no folder."""
    local = os.path.exists(os.path.expanduser(path))
    return None if local or not _HUB_ID.fullmatch(path) else path


def _reads_images(facts: Facts) -> bool:
    return facts.results["task"] == "image_classification"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """A text in which nothing is markup, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", line) if line != "---" else line
