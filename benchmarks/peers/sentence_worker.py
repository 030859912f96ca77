"""Worker: sentence-transformers on torch, for benchmarks/embedding.py.

    pip install torch sentence-transformers
    python benchmarks/peers/sentence_worker.py JOB.json

Its model, tokenizer and losses, in a loop without what its trainer does besides: batches in random
order, each column padded to its longest text, fused AdamW, norm of the gradient clipped to 1,
linear warm-up and decay. `rows` is a file of JSON: `train` and `eval`, lists of [text, text, score
or null]. Options: `loss` (cosent or ranking), `epochs` and `warmup`. `train 0` takes the steps of
all epochs, `train N` the next ones until N texts are done; `eval` gives the Spearman correlation of
`eval`.
"""
# pyright: reportMissingImports=false

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import protocol
import sentence_transformers
import torch
from scipy import stats
from sentence_transformers import SentenceTransformer, losses

CLIP_NORM = 1.0


class Worker:
    """A model, its loss, and rows in an order that a seed gives."""

    def __init__(self, job: protocol.Job) -> None:
        """Loads the model."""
        self.job = job
        rows = json.loads(Path(job.rows).read_text(encoding="utf-8"))
        self.rows, self.held = rows["train"], rows["eval"]
        self.model = SentenceTransformer(job.model, device="cpu")
        self.model.max_seq_length = job.max_length
        kinds = {"cosent": losses.CoSENTLoss, "ranking": losses.MultipleNegativesRankingLoss}
        self.loss = kinds[job.options["loss"]](self.model)
        self.begin(0)

    def begin(self, count: int) -> dict[str, Any]:
        """The optimizer before the first step."""
        del count
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.job.learning_rate, fused=True)
        epoch = -(-len(self.rows) // self.job.batch_size)
        self.steps = epoch * int(self.job.options["epochs"])
        warmup = round(self.steps * float(self.job.options["warmup"]))

        def rate(step: int) -> float:
            if step < warmup:
                return step / warmup
            return max(0.0, (self.steps - step) / max(1, self.steps - warmup))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        self.stream = self.batches()
        return {}

    def batches(self) -> Iterator[list[list[Any]]]:
        """Rows of each step, without end."""
        rng, size = np.random.default_rng(int(self.job.options.get("seed", 0))), self.job.batch_size
        while True:
            order = rng.permutation(len(self.rows))
            for start in range(0, len(order), size):
                yield [self.rows[i] for i in order[start : start + size]]

    def train(self, count: int) -> dict[str, Any]:
        """Steps until so many texts are done; of all epochs for 0."""
        self.model.train()
        start, done, steps, tokens, computed = time.perf_counter(), 0, 0, 0, 0
        while steps < self.steps if count == 0 else done < count:
            rows = next(self.stream)
            features = [self.model.tokenize([row[side] for row in rows]) for side in (0, 1)]
            scored = rows[0][2] is not None
            labels = torch.tensor([float(row[2]) for row in rows]) if scored else None
            loss = self.loss(features, labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            self.optimizer.step()
            self.schedule.step()
            done, steps = done + 2 * len(rows), steps + 1
            tokens += sum(int(part["attention_mask"].sum()) for part in features)
            computed += sum(part["input_ids"].numel() for part in features)
        seconds = time.perf_counter() - start
        found = {"seconds": seconds, "examples": done, "tokens": tokens}
        return found | {"computed_tokens": computed}

    def evaluate(self, count: int) -> dict[str, Any]:
        """The correlation of the cosines with the scores."""
        del count
        self.model.eval()
        one, other = (
            self.model.encode(
                [row[side] for row in self.held], batch_size=64, normalize_embeddings=True
            )
            for side in (0, 1)
        )
        scores = [row[2] for row in self.held]
        found: Any = stats.spearmanr((one * other).sum(1), scores)
        return {"spearman": float(found.statistic)}


def main() -> None:
    """Loads, and serves."""
    job, channel = protocol.start()
    worker = Worker(job)
    by = {"sentence_transformers": sentence_transformers.__version__, "torch": torch.__version__}
    channel.answer(ready=True, **by)
    channel.serve(train=worker.train, eval=worker.evaluate, begin=worker.begin)


if __name__ == "__main__":
    main()
