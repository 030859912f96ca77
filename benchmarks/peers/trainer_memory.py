"""Worker: a whole run of the Trainer of transformers, for benchmarks/growth_memory.py to watch.

Fused AdamW; an evaluation and a save every few steps, the best reloaded at the end and saved.
"""
# pyright: reportMissingImports=false

import csv
import json
import sys
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from trainer_settings import accuracy, settings
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
)


class Rows(Dataset):
    """Tokens of a csv of texts and labels, all of one length."""

    def __init__(self, file: Path, tokenizer: Any, tokens: int) -> None:
        """Makes them."""
        with open(file, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        made = tokenizer(
            [row["text"] for row in rows], truncation=True, padding="max_length", max_length=tokens
        )
        labels = [["no", "yes"].index(row["label"]) for row in rows]
        self.rows = [
            {"labels": label, **{name: made[name][i] for name in made}}
            for i, label in enumerate(labels)
        ]

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row i."""
        return self.rows[i]


def main() -> None:
    """Trains, evaluates, saves, reloads the best and writes it."""
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    rows = {
        split: Rows(folder / "data" / f"{split}.csv", tokenizer, job["tokens"])
        for split in ("train", "validation")
    }
    print("loaded", flush=True)
    chosen = settings(
        str(folder / "trainer"),
        max_steps=job["steps"],
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        learning_rate=1e-12,
        eval_strategy="steps",
        eval_steps=job["every"],
        save_strategy="steps",
        save_steps=job["every"],
        save_total_limit=1,
        logging_steps=job["every"],
    )
    trainer = Trainer(
        model,
        chosen,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        compute_metrics=accuracy,
    )
    trainer.train()
    print("trained", flush=True)
    trainer.save_model(str(folder / "trainer" / "model"))


if __name__ == "__main__":
    main()
