"""Worker: SetFit on torch, for benchmarks/fewshot.py.

    pip install setfit
    python benchmarks/peers/setfit_worker.py JOB.json

Its model and its trainer with their defaults. JOB has `rows`, a file of JSON with `train` and
`test`, lists of [text, label]; `model`, a folder; `seed`; `started`, the time at which the process
was begun. The last line that is printed is JSON.
"""
# pyright: reportMissingImports=false

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Trains and scores."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = json.loads(Path(job["rows"]).read_text(encoding="utf-8"))
    names = sorted({label for _, label in rows["train"]})
    train = Dataset.from_dict(
        {
            "text": [text for text, _ in rows["train"]],
            "label": [names.index(label) for _, label in rows["train"]],
        }
    )
    begin = time.perf_counter()
    model: Any = SetFitModel.from_pretrained(job["model"], device="cpu")
    options = TrainingArguments(
        output_dir=f"{job['folder']}/setfit",
        save_strategy="no",
        report_to="none",
        show_progress_bar=False,
        seed=job["seed"],
    )
    Trainer(model=model, args=options, train_dataset=train).train()
    seconds, process = time.perf_counter() - begin, time.time() - job["started"]
    cpu = time.process_time()
    said = model.predict([text for text, _ in rows["test"]], use_labels=False)
    right = [names.index(label) == int(one) for (_, label), one in zip(rows["test"], said)]  # noqa: B905
    found = {
        "accuracy": sum(right) / len(right),
        "seconds": seconds,
        "process": process,
        "cpu": cpu,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
