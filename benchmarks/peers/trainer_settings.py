"""What the runs of the Trainer have in common that benchmarks/growth.py stands beside."""
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
from transformers import TrainingArguments


def settings(output: str, **others: Any) -> TrainingArguments:
    """On the CPU, with fused AdamW; the best of the evaluations is reloaded at the end.

    Args:
      output: a folder for what is saved.
      **others: further arguments.
    """
    return TrainingArguments(
        output,
        optim="adamw_torch_fused",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to=[],
        use_cpu=True,
        **others,
    )


def accuracy(found: Any) -> dict[str, float]:
    """Of an evaluation, the share of rows whose likeliest class is the label."""
    right = np.argmax(found.predictions, -1) == found.label_ids
    return {"accuracy": float(right.mean())}
