"""Worker: the Trainer of transformers on torch, with its best settings or padded to a fixed length.

    pip install torch transformers accelerate
    python benchmarks/peers/trainer_worker.py JOB.json

Batches grouped by length and padded to their longest row, fused AdamW, sdpa attention, no logs and
no checkpoints. Options: `pad_to` (pads every row to so many tokens in a random order, the recipe of
many tutorials), `attention`, `multiple` (of the padded length), `workers` (of the data loader).
"""
# pyright: reportMissingImports=false

import tempfile
import time
from typing import Any

import protocol
import torch
import torch_model
import transformers
from torch.utils.data import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class TokenRows(Dataset):
    """Rows as the Trainer takes them."""

    def __init__(self, rows: protocol.Rows, order: Any) -> None:
        """Makes lists of them, so that no conversion is timed."""
        self.rows = [
            {"input_ids": rows.row(i).tolist(), "labels": int(rows.labels[i])} for i in order
        ]

    def __len__(self) -> int:
        """How many."""
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row i."""
        return self.rows[i]


class Commands(TrainerCallback):
    """Waits for commands between steps of one long call of `train`."""

    def __init__(self, worker: "Worker") -> None:
        """The first step comes before the first command."""
        self.worker, self.left, self.ready = worker, 1, False
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answers when the examples asked for are done."""
        self.left -= self.worker.unseen()
        if self.left > 0:
            return
        result = self.worker.result(self.start)
        self.worker.answer(result, first=not self.ready)
        self.ready, (name, self.left) = True, self.worker.channel.command()
        while name == "begin":
            self.worker.channel.answer()
            name, self.left = self.worker.channel.command()
        self.start = time.perf_counter()


class Worker:
    """A Trainer, with a count of what its model has been given."""

    def __init__(self, job: protocol.Job, channel: protocol.Channel, folder: str) -> None:
        """Loads the model; nothing is computed yet."""
        self.job, self.channel = job, channel
        self.counter, self.seen = protocol.Counter(), 0
        rows = {split: protocol.read_rows(job.rows, split) for split in ("train", "eval")}
        num_labels = int(rows["train"].labels.max()) + 1
        model = torch_model.load(job, num_labels, job.options.get("attention", "sdpa"))
        model.register_forward_pre_hook(self.count, with_kwargs=True)
        self.trainable = torch_model.trainable(model)
        pad_to = job.options.get("pad_to")
        tokenizer = AutoTokenizer.from_pretrained(job.model)
        padding: dict[str, Any] = {"padding": "max_length", "max_length": int(pad_to or 0)}
        if pad_to is None:
            multiple = int(job.options.get("multiple", 0)) or None
            padding = {"padding": True, "pad_to_multiple_of": multiple}
        workers, order = int(job.options.get("workers", 0)), (-rows["eval"].lengths).argsort()
        settings = TrainingArguments(
            folder,
            max_steps=1_000_000,
            per_device_train_batch_size=job.batch_size,
            per_device_eval_batch_size=job.eval_batch_size,
            learning_rate=job.learning_rate,
            weight_decay=0.01,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            # It orders evaluation too, where rows sorted beforehand pad less.
            train_sampling_strategy="random" if pad_to or job.mode == "eval" else "group_by_length",
            bf16=job.dtype == "bfloat16",
            tf32=True if job.device == "gpu" else None,
            use_cpu=job.device == "cpu",
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,
            dataloader_pin_memory=job.device == "gpu",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        self.trainer = Trainer(
            model,
            settings,
            train_dataset=TokenRows(rows["train"], range(len(rows["train"].labels))),
            data_collator=DataCollatorWithPadding(tokenizer, **padding),
            callbacks=[Commands(self)] if job.mode == "train" else [],
        )
        self.eval_rows = TokenRows(rows["eval"], range(len(order)) if pad_to else order)
        self.trainer.remove_callback(transformers.PrinterCallback)

    def count(self, model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Notes a batch on its way into the model; fetches nothing from the device."""
        del model, args
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        self.counter.add(len(ids), mask.sum(), ids.numel())
        self.seen += len(ids)

    def unseen(self) -> int:
        """Examples that the model was given since the last call."""
        found, self.seen = self.seen, 0
        return found

    def evaluate(self, count: int) -> dict[str, Any]:
        """Predicts all rows of evaluation, which are `count`."""
        start = time.perf_counter()
        rows: Any = self.eval_rows
        if count < len(rows):
            rows = torch.utils.data.Subset(rows, range(count))
        self.trainer.predict(rows)
        return self.result(start)

    def result(self, start: float) -> dict[str, Any]:
        """What was done since `start`, once the device has done it."""
        if self.job.device == "gpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        bytes_used = torch_model.device_bytes(self.job)
        return {"seconds": seconds, "device_bytes": bytes_used} | self.counter.take()

    def answer(self, result: dict[str, Any], *, first: bool) -> None:
        """One line; the first says who is ready."""
        if first:
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            result = {"ready": True, "trainable": self.trainable, "shapes": 0} | versions | result
        self.channel.answer(**result)

    def serve(self) -> None:
        """Takes a step, says so, and answers commands for ever."""
        if self.job.mode == "train":
            self.trainer.train()
        else:
            self.answer(self.evaluate(self.job.eval_batch_size), first=True)
            self.channel.serve(eval=self.evaluate)


def main() -> None:
    """Loads and serves."""
    job, channel = protocol.start()
    with tempfile.TemporaryDirectory() as folder:
        Worker(job, channel, folder).serve()


if __name__ == "__main__":
    main()
