"""A run before its first step: what `prepare` finds out, grouped by what belongs together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from jaxtune.core.types import ApplyFn, LossFn, Params
from jaxtune.data.batching.layout import Layout
from jaxtune.data.batching.stream import Stream
from jaxtune.frozen.plan import TrunkPlan
from jaxtune.models.model import Model
from jaxtune.models.observed import make_observed_apply
from jaxtune.models.pretrained import Pretrained
from jaxtune.models.trunk import make_upper_apply
from jaxtune.parallel.sharding import Sharding
from jaxtune.settings import Settings
from jaxtune.tasks.task import Task
from jaxtune.training import few_kernels, optimizers
from jaxtune.training.optimizers import Scaler
from jaxtune.tuning import injection, partition
from jaxtune.tuning.partition import Strategy


class Held(NamedTuple):
    """What the examples do not say of the split that a report is on.

    Attributes:
      split: `test` where there is one, else `validation`.
      texts: of each example, one or two; None where the examples have them, or are no texts.
      places: row of each example in its file, from 1; None where examples are no rows.
    """

    split: str
    texts: Sequence[tuple[str, ...]] | None = None
    places: np.ndarray | None = None


class RunData(NamedTuple):
    """What is read.

    Attributes:
      examples: by split.
      stream: those of training in their order.
      eval_layout: how the others make batches.
      processor: the tokenizer or image processor, from the model's folder.
      notes: what a person should know about the data.
      held: of the split that a report is on.
      places: row of each training example in its file, from 1; None where examples are no rows.
    """

    examples: Mapping[str, Any]
    stream: Stream
    eval_layout: Layout
    processor: Any
    notes: tuple[str, ...]
    held: Held
    places: np.ndarray | None = None


class Tuned(NamedTuple):
    """What is trained.

    Attributes:
      strategy: as the settings name it.
      apply_fn: the model on the parameters, with those that the strategy adds.
      stage_labels: the labels of each stage of the strategy; most have one.
      trunks: the frozen layers of each stage.
      multipliers: a factor on the learning rate of each leaf.
      observed: hidden states that the loss reads beside the outputs; () for none.
    """

    strategy: Strategy
    apply_fn: ApplyFn
    stage_labels: tuple[Any, ...]
    trunks: tuple[TrunkPlan, ...]
    multipliers: Any
    observed: tuple[int, ...] = ()

    def train_fn(self, module: Model, depth: int = 0) -> ApplyFn:
        """The model as its loss takes it in training.

        Args:
          module: the model.
          depth: of the trunk that batches bring the outputs of; 0 for none.
        """
        if self.observed:
            return injection.adapt(self.strategy, make_observed_apply(module, depth, self.observed))
        if not depth:
            return self.apply_fn
        return injection.adapt(self.strategy, make_upper_apply(module, depth))


class Goal(NamedTuple):
    """What is minimised, how fast and for how long.

    Attributes:
      loss_fn: of a batch.
      scaler: what turns gradients into steps before the rate.
      schedule: learning rate by step.
      steps_per_epoch: batches in one pass.
      num_steps: in all.
      best_metric: the score that chooses the best checkpoint.
    """

    loss_fn: LossFn
    scaler: Scaler
    schedule: optax.Schedule
    steps_per_epoch: int
    num_steps: int
    best_metric: str


class Run(NamedTuple):
    """A run before its first step.

    Attributes:
      settings: resolved, with the digests of weights and data.
      task: loss, metrics, decoding.
      pretrained: the model as loaded, without its parameters, which are in `params`.
      params: all parameters at step 0, with those that the strategy adds; of what the first stage
        trains only the shapes, once the loop has begun.
      data: what is read.
      tuning: what is trained.
      goal: what is minimised, how fast and for how long.
      sharding: of parameters and batches on several devices; None on one.
    """

    settings: Settings
    task: Task
    pretrained: Pretrained
    params: Params
    data: RunData
    tuning: Tuned
    goal: Goal
    sharding: Sharding | None


def takes_few_kernels(run: Run) -> bool:
    """Whether a step is of those that `few_kernels` is for: bfloat16, on one GPU."""
    is_gpu = run.pretrained.design.device.platform == "gpu"
    return is_gpu and run.sharding is None and run.settings.precision.compute_dtype == "bfloat16"


def make_tx(run: Run, stage: int) -> optax.GradientTransformation:
    """The optimizer of the leaves that are trained in a stage."""
    chosen, labels = run.settings.optimizer, run.tuning.stage_labels[stage]
    factors, _ = partition.partition(run.tuning.multipliers, labels)
    clip: Any = chosen.clip_norm
    if clip is not None and takes_few_kernels(run):
        clip = few_kernels.clip_by_norm_of_all(clip)
    return optimizers.make_optimizer(
        run.goal.scaler,
        run.goal.schedule,
        labels,
        weight_decay=chosen.weight_decay,
        clip_norm=clip,
        multipliers=factors,
    )
