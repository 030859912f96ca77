"""Worker: Keras Hub on its JAX backend, by `fit` and `predict`.

    pip install keras jax regex tokenizers kagglehub && pip install --no-deps keras-hub
    python benchmarks/peers/keras_worker.py JOB.json

Every row is padded to the longest that there may be: one compiled shape, and one more for the last
batch of an epoch where it is not full. A BERT with the folder's config and random weights.
"""
# pyright: reportMissingImports=false

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import protocol

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import keras_hub

TOTAL_STEPS = 100_000  # the learning rate has fallen to 0 by then; a benchmark takes fewer


class Worker:
    """A compiled classifier, and its rows as arrays."""

    def __init__(self, job: protocol.Job) -> None:
        """Draws the weights; nothing is compiled yet."""
        if job.strategy != "full":
            raise SystemExit(f"strategy {job.strategy!r}: this worker trains everything")
        self.job, self.counter = job, protocol.Counter()
        self.rows = {split: protocol.read_rows(job.rows, split) for split in ("train", "eval")}
        bf16 = job.dtype == "bfloat16"
        keras.config.set_dtype_policy("mixed_bfloat16" if bf16 else "float32")
        keras.utils.set_random_seed(0)
        config = json.loads((Path(job.model) / "config.json").read_text(encoding="utf-8"))
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=config["vocab_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            hidden_dim=config["hidden_size"],
            intermediate_dim=config["intermediate_size"],
            dropout=config["hidden_dropout_prob"],
            max_sequence_length=config["max_position_embeddings"],
        )
        num_classes = int(self.rows["train"].labels.max()) + 1
        classifier = keras_hub.models.BertTextClassifier(
            backbone=backbone, num_classes=num_classes, preprocessor=None
        )
        # A plain model of the same layers: rows are arrays, and need no pipeline of preprocessing.
        self.model: Any = keras.Model(classifier.inputs, classifier.outputs[0])
        rate = keras.optimizers.schedules.PolynomialDecay(job.learning_rate, TOTAL_STEPS, 0.0)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )
        self.arrays = {}
        for split, rows in self.rows.items():
            batch = rows.padded(np.arange(len(rows.labels)), job.max_length, np.int32)
            inputs = {
                "token_ids": batch["input_ids"],
                "segment_ids": np.zeros_like(batch["input_ids"]),
                "padding_mask": batch["attention_mask"],
            }
            self.arrays[split] = (inputs, batch["labels"])

    def part(self, split: str, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The first `count` rows."""
        inputs, labels = self.arrays[split]
        lengths = self.rows[split].lengths[:count]
        self.counter.add(len(lengths), int(lengths.sum()), len(lengths) * self.job.max_length)
        return {name: array[:count] for name, array in inputs.items()}, labels[:count]

    def train(self, count: int) -> dict[str, Any]:
        """Trains on the first `count` rows in random order."""
        inputs, labels = self.part("train", count)
        start = time.perf_counter()
        self.model.fit(inputs, labels, batch_size=self.job.batch_size, epochs=1, verbose=0)
        return self.result(start)

    def evaluate(self, count: int) -> dict[str, Any]:
        """Predicts the first `count` rows of evaluation."""
        inputs, _ = self.part("eval", count)
        start = time.perf_counter()
        self.model.predict(inputs, batch_size=self.job.eval_batch_size, verbose=0)
        return self.result(start)

    def result(self, start: float) -> dict[str, Any]:
        """What was done since `start`."""
        memory = jax.devices()[0].memory_stats() if self.job.device == "gpu" else None
        return {
            "seconds": time.perf_counter() - start,
            "shapes": 1,
            "device_bytes": (memory or {}).get("peak_bytes_in_use"),
        } | self.counter.take()


def main() -> None:
    """Loads, takes a step, and serves."""
    job, channel = protocol.start()
    worker = Worker(job)
    is_train = job.mode == "train"
    size = job.batch_size if is_train else job.eval_batch_size
    first = worker.train(size) if is_train else worker.evaluate(size)
    versions = {"jax": jax.__version__, "keras": keras.__version__}
    versions["keras_hub"] = keras_hub.__version__
    count = int(sum(np.prod(v.shape) for v in worker.model.trainable_variables))
    channel.answer(ready=True, trainable=count, **versions, **first)
    channel.serve(train=worker.train, eval=worker.evaluate, begin=lambda count: {})


if __name__ == "__main__":
    main()
