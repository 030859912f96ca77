"""The rows and columns of the table of strategies: strategies, tasks, and a run's settings."""

import hashlib
import json
from typing import NamedTuple

ROWS: dict[str, dict[str, str]] = {
    "full": {},
    "gradual, ulmfit": {"name": "gradual", "stage_length": "0.25", "layers_per_stage": "2"},
    "lora": {},
    "head": {},
    "last_layers, 1": {"name": "last_layers", "num_layers": "1"},
    "bitfit": {},
    "ia3": {},
    "adapter, pfeiffer": {"name": "adapter", "placement": "pfeiffer"},
    "prefix": {},
    "layernorm": {},
    "embeddings_frozen": {},
    "first_layers_frozen, 2": {"name": "first_layers_frozen", "num_layers": "2"},
    "rules, upper attention": {
        "name": "rules",
        # The heads of all tasks: `classifier` after a pooler, alone, and `qa_outputs`.
        "rules": (
            "layer/[345]/attention/=trainable,"
            "pooler|classifier|qa_outputs=trainable,.*=frozen"
        ),
    },
    "full, layer_decay 0.8": {"name": "full", "optimizer.layer_decay": "0.8"},
    "adapter, houlsby": {"name": "adapter", "placement": "houlsby"},
    "lora, all matrices": {"name": "lora", "targets": r"layer/\d+/.*kernel$"},
    "gradual, chain_thaw": {
        "name": "gradual", "order": "chain_thaw", "stage_length": "0.25", "layers_per_stage": "2",
    },
    "lora, use_dora": {"name": "lora", "use_dora": "true"},
}  # fmt: skip


class Task(NamedTuple):
    """A column of the table.

    Attributes:
      title: over the column.
      config: that it begins with, by name.
      metric: what is reported.
      split: that it is reported of.
      recipe: overrides. Nothing is chosen by validation: each run is evaluated once, at its end.
    """

    title: str
    config: str
    metric: str
    split: str
    recipe: dict[str, str]


def _recipe(rows: int, length: int, batch: int, epochs: int, **more: str) -> dict[str, str]:
    steps = str(epochs * -(-rows // batch))
    return {
        "data.max_train_examples": str(rows),
        "data.max_length": str(length),
        "train.batch_size": str(batch),
        "train.num_steps": steps,
        "train.eval_every_steps": steps,
        "train.trackers": "",
    } | {name.replace("__", "."): value for name, value in more.items()}


TASKS: dict[str, Task] = {
    "classification": Task(
        "AG News, accuracy", "agnews", "accuracy", "test",
        _recipe(500, 64, 16, 2, data__max_eval_examples="1000", data__validation_size="20"),
    ),
    "pairs": Task(
        "STS-B, Spearman", "stsb", "spearman", "test",
        _recipe(1000, 64, 16, 2, data__max_eval_examples="1000", data__column_names=""),
    ),
    "ner": Task(
        "WNUT 17, F1", "wnut17", "f1", "test",
        _recipe(1000, 64, 16, 3, data__max_eval_examples="1000"),
    ),
    "qa": Task(
        "SQuAD, F1", "squad", "f1", "validation",
        _recipe(
            1250, 192, 8, 2, data__max_eval_examples="300", data__doc_stride="64",
            data__allow_no_answer="false",
        ),
    ),
}  # fmt: skip
"""In the order in which they are measured."""

_PATHS = ("data.path", "model.path")


def settings_of(task: str, strategy: str, more: dict[str, str]) -> dict[str, str]:
    """The overrides of a run: the task's recipe, the strategy's own, the command line's."""
    own = {"name": strategy, **ROWS[strategy]}
    tuning = {key if "." in key else f"tuning.{key}": value for key, value in own.items()}
    return TASKS[task].recipe | tuning | more


def digest(settings: dict[str, str]) -> str:
    """Tells recipes apart, wherever data and model lie."""
    kept = {name: value for name, value in settings.items() if name not in _PATHS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def folder_name(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
