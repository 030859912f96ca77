"""Worker: a training loop written by hand on torch, without what the Trainer does besides.

    pip install torch transformers
    python benchmarks/peers/torch_loop.py JOB.json

Batches of like lengths, padded to the longest row; fused AdamW; gradients set to None; nothing is
fetched from the device in a step. Options: `attention` (sdpa, eager), `bf16` (autocast, or copy:
the model in bfloat16 beside float32 weights that AdamW updates), `compile` (1 for torch.compile
with dynamic shapes), `multiple` (of the padded length).
"""
# pyright: reportMissingImports=false

import contextlib
import time
from typing import Any

import numpy as np
import protocol
import torch
import torch_model

CLIP_NORM = 1.0
TOTAL_STEPS = 100_000  # the learning rate has fallen to 0 by then; a benchmark takes fewer


class Loop:
    """A model with its optimizer and its stream of batches."""

    def __init__(self, job: protocol.Job) -> None:
        """Loads the model; nothing is computed yet."""
        self.job, self.device = job, "cuda" if job.device == "gpu" else "cpu"
        self.rows = {split: protocol.read_rows(job.rows, split) for split in ("train", "eval")}
        self.multiple = int(job.options.get("multiple", 1))
        self.copied = job.dtype == "bfloat16" and job.options.get("bf16", "autocast") == "copy"
        num_labels = int(self.rows["train"].labels.max()) + 1
        model = torch_model.load(job, num_labels, job.options.get("attention", "sdpa"))
        model.to(self.device)
        self.count = torch_model.trainable(model)
        self.masters = [p for p in model.parameters() if p.requires_grad]
        if self.copied:
            self.masters = [p.detach().clone() for p in self.masters]
            model.to(torch.bfloat16)
        self.weights = [p for p in model.parameters() if p.requires_grad]
        compiled: Any = torch.compile(model, dynamic=True)
        self.model: Any = compiled if job.options.get("compile") == "1" else model
        if job.mode == "train":
            self.model.train()
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": [p for p in self.masters if p.ndim > 1], "weight_decay": 0.01},
                    {"params": [p for p in self.masters if p.ndim < 2], "weight_decay": 0.0},
                ],
                lr=job.learning_rate,
                fused=True,
            )
            self.schedule = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, lambda step: max(0.0, 1.0 - step / TOTAL_STEPS)
            )
        else:
            self.model.eval()
        self.stream = protocol.sorted_epochs(self.rows["train"].lengths, job.batch_size)
        self.counter = protocol.Counter()

    def batch(self, split: str, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """A padded batch on the device; without a mask where nothing is padded."""
        lengths = self.rows[split].lengths[indices]
        length = -(-int(lengths.max()) // self.multiple) * self.multiple
        arrays = self.rows[split].padded(indices, min(length, self.job.max_length))
        if lengths.min() == length:
            del arrays["attention_mask"]
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.device == "cuda":
            tensors = {k: v.pin_memory().to("cuda", non_blocking=True) for k, v in tensors.items()}
        self.counter.add(len(indices), int(lengths.sum()), tensors["input_ids"].numel())
        return tensors

    def precision(self) -> Any:
        """The context of the forward pass."""
        if self.job.dtype == "float32" or self.copied:
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    def step(self) -> int:
        """One step on the next batch; the number of its examples."""
        indices = next(self.stream)
        batch = self.batch("train", indices)
        labels = batch.pop("labels")
        with self.precision():
            logits = self.model(**batch).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        if self.copied:
            for master, weight in zip(self.masters, self.weights, strict=True):
                master.grad = None if weight.grad is None else weight.grad.float()
        torch.nn.utils.clip_grad_norm_(self.masters, CLIP_NORM, foreach=True)
        self.optimizer.step()
        self.schedule.step()
        if self.copied:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)
            for weight in self.weights:
                weight.grad = None
        self.optimizer.zero_grad(set_to_none=True)
        return len(indices)

    def train(self, count: int) -> dict[str, Any]:
        """Trains on `count` examples."""
        start, done = time.perf_counter(), 0
        while done < count:
            done += self.step()
        return self.result(start)

    @torch.inference_mode()
    def evaluate(self, count: int) -> dict[str, Any]:
        """Predicts the first `count` rows of evaluation, longest first."""
        start, size = time.perf_counter(), self.job.eval_batch_size
        lengths = self.rows["eval"].lengths[:count]
        order = np.argsort(-lengths, kind="stable")
        logits = []
        for i in range(0, len(order), size):
            batch = self.batch("eval", order[i : i + size])
            del batch["labels"]
            with self.precision():
                logits.append(self.model(**batch).logits.float())
        outputs = np.empty((len(order), logits[0].shape[-1]), np.float32)
        outputs[order] = torch.cat(logits).cpu().numpy()
        return self.result(start)

    def result(self, start: float) -> dict[str, Any]:
        """What was done since `start`, once the device has done it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        bytes_used = torch_model.device_bytes(self.job)
        return {"seconds": seconds, "device_bytes": bytes_used} | self.counter.take()


def main() -> None:
    """Loads, takes a step, and serves."""
    job, channel = protocol.start()
    loop = Loop(job)
    first = loop.train(1) if job.mode == "train" else loop.evaluate(job.eval_batch_size)
    channel.answer(ready=True, trainable=loop.count, shapes=0, torch=torch.__version__, **first)
    channel.serve(train=loop.train, eval=loop.evaluate, begin=lambda count: {})


if __name__ == "__main__":
    main()
