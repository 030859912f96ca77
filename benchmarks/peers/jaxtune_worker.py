"""Worker: what a user of jaxtune gets, through its public functions.

    python benchmarks/peers/jaxtune_worker.py JOB.json

Reads the data and the model by `prepare`, with tokens kept for the next start, takes step and
batches of `stages.begin`, these made ahead by `prefetch`, and evaluates by `predict_all`, as
`jaxtune.main` does; without logs, checkpoints and scores.
"""

import os
import time
from pathlib import Path
from typing import Any

import jax
import protocol
from rich.console import Console

from jaxtune.core import trees
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.run import stages
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.evaluate import predict_all
from jaxtune.run.prepare import prepare
from jaxtune.training.compiled import Compiled
from jaxtune.training.eval_step import make_eval_step


class Worker:
    """A run, its stage and its stream of batches."""

    def __init__(self, job: protocol.Job) -> None:
        """Prepares the run; nothing is compiled yet."""
        self.job = job
        settings = load_config(job.config, job.overrides)
        tokens = Path(os.environ["JAX_COMPILATION_CACHE_DIR"], "tokens")
        tokens.mkdir(parents=True, exist_ok=True)
        self.run = prepare(settings, Report(Console(quiet=True)), tokens)
        self.counter = protocol.Counter()
        self.eval_split = "test" if "test" in self.run.data.examples else "validation"
        run, self.params = self.run, jax.device_put(self.run.params)
        self.no_holes = jax.tree.map(lambda _: None, self.params)
        metrics_fn, fetch = run.task.loss.metrics, run.task.output.fetch
        self.eval_step = Compiled(make_eval_step(run.tuning.apply_fn, metrics_fn, fetch))
        self.begin(0)

    def begin(self, count: int) -> dict[str, Any]:
        """The state and the stream before the first step."""
        del count
        if self.job.mode == "train":
            # The step takes the memory of what it trains.
            params = (
                jax.tree.map(jax.numpy.array, self.params) if self.job.restarts else self.params
            )
            self.stage = stages.begin(self.run, 0, params)
            self.stream = self.stage.loader.on_devices()
        return {}

    def train(self, count: int) -> dict[str, Any]:
        """Trains on `count` examples; as in `jaxtune.run.loop` four steps may be under way."""
        start, compiling = time.perf_counter(), self.stage.compile_seconds
        lengths, done, waiting = self.run.data.stream.examples.lengths, 0, []
        while done < count:
            index, batch = next(self.stream)
            if not self.stage.step.knows(batch):  # nothing is computed in time that is not counted
                jax.block_until_ready((waiting, self.stage.state))
            state, info = self.stage.step(self.stage.state, self.stage.frozen, batch)
            self.stage = self.stage._replace(state=state)
            waiting.append(info.loss)
            jax.block_until_ready(waiting[:-4][-1:])
            done += len(index.indices)
            self.counter.add(
                len(index.indices),
                int(lengths[index.indices].sum()),
                computed_tokens(index, len(batch["weight"])),
            )
        jax.block_until_ready((waiting, self.stage.state))
        compiled = self.stage.compile_seconds - compiling
        return self.result(start, self.stage.step, compiled)

    def first_prediction(self) -> dict[str, Any]:
        """Predicts one batch."""
        start, data = time.perf_counter(), self.run.data
        examples, layout = data.examples[self.eval_split], data.eval_layout
        index = layout.place(layout.eval_order(examples.lengths)[0], examples.lengths)
        jax.block_until_ready(self.predict(examples.collate(index, layout.batch_size)))
        return self.result(start, self.eval_step, self.eval_step.seconds)

    def predict(self, batch: Any) -> Any:
        """The step of evaluation on all parameters."""
        self.counter.add(0, 0, batch["input_ids"].size)
        return self.eval_step(self.params, self.no_holes, batch)

    def evaluate(self, count: int) -> dict[str, Any]:
        """Predicts all rows of evaluation, which are `count`."""
        del count
        start, compiling = time.perf_counter(), self.eval_step.seconds
        run, examples = self.run, self.run.data.examples[self.eval_split]
        predict_all(
            self.predict, examples, run.data.eval_layout, per_token=run.task.output.per_token
        )
        self.counter.add(len(examples.lengths), int(examples.lengths.sum()), 0)
        return self.result(start, self.eval_step, self.eval_step.seconds - compiling)

    def result(self, start: float, program: Compiled, compiled: float) -> dict[str, Any]:
        """What was done since `start`; the time in the compiler apart."""
        memory = jax.devices()[0].memory_stats() if self.job.device == "gpu" else None
        return {
            "seconds": time.perf_counter() - start - compiled,
            "compile_seconds": compiled,
            "shapes": len(program.shapes),
            "device_bytes": (memory or {}).get("peak_bytes_in_use"),
        } | self.counter.take()


def computed_tokens(index: BatchIndex, rows: int) -> int:
    """Tokens of the rows of a batch, padding too."""
    return index.length * (rows if index.rows is None else len(index.rows))


def main() -> None:
    """Prepares, takes a step, and serves."""
    job, channel = protocol.start()
    worker = Worker(job)
    if job.mode == "train":
        first = worker.train(1)
        count = trees.count(worker.stage.state.params)
    else:
        first, count = worker.first_prediction(), trees.count(worker.params)
    channel.answer(ready=True, trainable=count, jax=jax.__version__, **first)
    channel.serve(train=worker.train, eval=worker.evaluate, begin=worker.begin)


if __name__ == "__main__":
    main()
