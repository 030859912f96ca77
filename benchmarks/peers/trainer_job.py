"""Worker: a short job of the Trainer of transformers, for benchmarks/growth_start.py to time.

The usual script: csv files by `datasets`, a map of the tokenizer, batches padded to their longest
text, fused AdamW, one epoch with 5% held out, the test rows scored, the model written.
"""
# pyright: reportMissingImports=false

import json
import sys
from typing import Any

import datasets
from trainer_settings import accuracy, settings
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
)


def main() -> None:
    """Trains, evaluates, tests and saves."""
    job = json.loads(sys.argv[1])
    files = {split: f"{job['data']}/{split}.csv" for split in ("train", "test")}
    rows: Any = datasets.load_dataset("csv", data_files=files, cache_dir=job["output"] + "-cache")
    names = sorted(map(str, set(rows["train"]["label"])))
    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(batch: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer(batch["text"], truncation=True, max_length=128)
        return {**found, "labels": [names.index(str(label)) for label in batch["label"]]}

    rows = rows.map(encode, batched=True, remove_columns=["text", "label"])
    held = rows["train"].train_test_split(0.05, seed=0)
    model = AutoModelForSequenceClassification.from_pretrained(
        job["model"], num_labels=len(names), ignore_mismatched_sizes=True
    )
    chosen = settings(
        job["output"],
        num_train_epochs=1,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        learning_rate=2e-5,
        warmup_steps=0.1,
        weight_decay=0.01,
        bf16=job["dtype"] == "bfloat16",
        eval_strategy="epoch",
        save_strategy="epoch",
    )
    trainer = Trainer(
        model,
        chosen,
        train_dataset=held["train"],
        eval_dataset=held["test"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    trainer.train()
    print(trainer.evaluate(rows["test"]))
    trainer.save_model(job["output"] + "/model")


if __name__ == "__main__":
    main()
