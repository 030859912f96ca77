"""The part of a head that no step trains: fitted on the vectors of the labelled texts."""

from collections.abc import Callable

import jax
import numpy as np

from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.data.text.class_pairs import alone
from jaxtune.models.pooling import CLASSIFIER
from jaxtune.parallel.sharding import put
from jaxtune.run.evaluate import predict_all
from jaxtune.run.model_layouts import layouts_for
from jaxtune.run.setup import Run
from jaxtune.tasks.task import as_they_are, no_metrics
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.sharded_step import compile_eval

Fit = Callable[[Params], Params]
"""All parameters -> the same, with those that are fitted as they follow from the others."""


def as_trained(params: Params) -> Params:
    """Of a task that trains all that it needs."""
    return params


def make_fit(run: Run) -> Fit:
    """What fits the classifier of a run on its training texts; nothing is compiled yet."""
    if run.task.fit is None:
        return as_trained
    examples, design = run.data.examples["train"], run.pretrained.design
    vectors_of, labels = _vectors(run), np.asarray(examples.labels)
    solve, count, sharding = run.task.fit, design.outputs.size, run.sharding

    def fit(params: Params) -> Params:
        kernel, bias = solve(vectors_of(params), labels, count)
        flat = paths.flatten(params)
        for name, value in (("kernel", kernel), ("bias", bias)):
            leaf = f"{CLASSIFIER}/{name}"
            flat[leaf] = put(sharding, leaf, value)
        return paths.unflatten(flat)

    return fit


def _vectors(run: Run) -> Callable[[Params], np.ndarray]:
    """(all parameters) -> the vector of each training text, [n d], without dropout."""
    sharding, design = run.sharding, run.pretrained.design
    texts = alone(run.data.examples["train"]._replace(transform=None))
    layout = layouts_for(design, run.settings.data.tokens.layout)(
        texts.lengths,
        min(run.settings.train.eval_batch_size, len(texts.lengths)),
        multiple=1 if sharding is None else sharding.num_shares,
    )
    step = make_eval_step(run.tuning.apply_fn, no_metrics, as_they_are)
    compiled = compile_eval(step, sharding)

    def vectors_of(params: Params) -> np.ndarray:
        no_holes = jax.tree.map(lambda _: None, params)
        _, found = predict_all(
            lambda batch: compiled(params, no_holes, batch), texts, layout, sharding=sharding
        )
        return found

    return vectors_of
