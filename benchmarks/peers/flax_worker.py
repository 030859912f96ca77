"""Worker: the last Flax models of transformers, with the training step of its own examples.

    pip install "transformers==4.57.*" flax optax jax
    python benchmarks/peers/flax_worker.py JOB.json

Every row is padded to the longest that there may be, as run_flax_glue.py does: one compiled shape.
The model has the folder's config and random weights; reading weights of torch would want torch.
"""
# pyright: reportMissingImports=false

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import protocol
import transformers
from flax import traverse_util
from flax.training import train_state
from transformers import AutoConfig

MODEL = "FlaxBertForSequenceClassification"  # which newer versions lack
TOTAL_STEPS = 100_000  # the learning rate has fallen to 0 by then; a benchmark takes fewer


def decayed(params: Any) -> Any:
    """Which parameters decay: neither biases nor LayerNorm."""
    flat = traverse_util.flatten_dict(params)
    keep = {path: path[-1] != "bias" and "LayerNorm" not in path for path in flat}
    return traverse_util.unflatten_dict(keep)


@partial(jax.jit, donate_argnums=(0, 2))
def train_step(state: Any, batch: Any, key: Any) -> tuple[Any, Any, Any]:
    """One update; (state, loss, next key)."""
    key, next_key = jax.random.split(key)
    labels = batch.pop("labels")

    def loss_fn(params: Any) -> Any:
        logits = state.apply_fn(**batch, params=params, dropout_rng=key, train=True)[0]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return losses.mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss, next_key


class Worker:
    """A train state and a stream of batches."""

    def __init__(self, job: protocol.Job) -> None:
        """Draws the weights; nothing is compiled yet."""
        if job.strategy != "full":
            raise SystemExit(f"strategy {job.strategy!r}: the examples train everything")
        self.job, self.counter = job, protocol.Counter()
        self.rows = {split: protocol.read_rows(job.rows, split) for split in ("train", "eval")}
        num_labels = int(self.rows["train"].labels.max()) + 1
        config = AutoConfig.from_pretrained(job.model, num_labels=num_labels)
        make: Any = getattr(transformers, MODEL)
        model = make(config, seed=0, dtype=jnp.dtype(job.dtype))
        self.params = model.params
        self.key, self.rng = jax.random.key(0), np.random.default_rng(0)
        self.predict = jax.jit(lambda params, batch: model(**batch, params=params)[0])
        if job.mode == "train":
            schedule = optax.linear_schedule(job.learning_rate, 0.0, TOTAL_STEPS)
            tx = optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.adamw(schedule, weight_decay=0.01, mask=decayed),
            )
            self.state: Any = train_state.TrainState.create(
                apply_fn=model.__call__, params=model.params, tx=tx
            )
        self.order, self.shapes = np.zeros(0, np.int64), set()

    def batch(self, split: str, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows at full length."""
        batch = self.rows[split].padded(indices, self.job.max_length, np.int32)
        tokens = int(self.rows[split].lengths[indices].sum())
        self.counter.add(len(indices), tokens, batch["input_ids"].size)
        self.shapes.add(batch["input_ids"].shape)
        return batch

    def train(self, count: int) -> dict[str, Any]:
        """Trains on `count` examples."""
        start, done = time.perf_counter(), 0
        while done < count:
            if not len(self.order):
                self.order = self.rng.permutation(len(self.rows["train"].labels))
            part, self.order = np.split(self.order, [self.job.batch_size])
            self.state, loss, self.key = train_step(self.state, self.batch("train", part), self.key)
            del loss
            done += len(part)
        jax.block_until_ready(self.state)
        return self.result(start)

    def evaluate(self, count: int) -> dict[str, Any]:
        """Predicts the first `count` rows of evaluation."""
        start, size, outputs = time.perf_counter(), self.job.eval_batch_size, []
        for i in range(0, count, size):
            part = np.arange(i, min(i + size, count))
            batch = self.batch("eval", part)
            del batch["labels"]
            outputs.append(self.predict(self.params, batch))
        jax.device_get(outputs)
        return self.result(start)

    def result(self, start: float) -> dict[str, Any]:
        """What was done since `start`."""
        memory = jax.devices()[0].memory_stats() if self.job.device == "gpu" else None
        return {
            "seconds": time.perf_counter() - start,
            "shapes": len(self.shapes),
            "device_bytes": (memory or {}).get("peak_bytes_in_use"),
        } | self.counter.take()


def main() -> None:
    """Loads, takes a step, and serves."""
    job, channel = protocol.start()
    worker = Worker(job)
    first = worker.train(1) if job.mode == "train" else worker.evaluate(job.eval_batch_size)
    versions = {"jax": jax.__version__, "transformers": transformers.__version__}
    count = sum(leaf.size for leaf in jax.tree.leaves(worker.params))
    channel.answer(ready=True, trainable=count, **versions, **first)
    channel.serve(train=worker.train, eval=worker.evaluate, begin=lambda count: {})


if __name__ == "__main__":
    main()
