"""Every setting of a run: its name, its type, its default and its meaning, in one place.

`jaxtune.run.config` turns these into the ConfigDict that config files fill and the command line
overrides; the code below it takes these frozen dataclasses. None means: not set.
"""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Interval, MinLen, doc

from jaxtune.settings.data import DataSettings
from jaxtune.settings.distillation import DistillationSettings
from jaxtune.settings.fields import Amount, Code, Count, Flat, Positive, Share, WholeAmount
from jaxtune.settings.tuning import TuningSettings

Task = Literal[
    "classification",
    "multi_label",
    "regression",
    "token_classification",
    "question_answering",
    "causal_lm",
    "masked_lm",
    "image_classification",
    "embedding",
    "few_shot",
    "reranking",
    "multiple_choice",
]
"""What `config.task` may be."""


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Where the pretrained weights are.

    Attributes:
      path: a folder in the transformers layout, or a hub id.
      revision: branch, tag or commit of a hub id.
      sha256: expected digest of the weight files (joined in the order of their names).
      config_sha256: expected digest of `config.json`.
      tokenizer_sha256: expected digest of the files of the tokenizer or image processor.
      from_scratch: draws all parameters; of the folder only `config.json` is read. What the
        strategy freezes stays as it was drawn.
      layers: which layers of the folder's model the run has, from 0, the others left out: `0,2,4`,
        or `every 2` for 0, 2, 4 and so on; `()` for all.
      head: a head of your own, `MODULE:FUNCTION`, called with the number of outputs, which gives a
        Linen module from features to outputs; of tasks with classes or numbers for outputs.
      pooling: of `embedding` and `few_shot`: the `mean` of the states of all tokens, or that of the
        `first` or `last`; None takes that of a folder of sentence-transformers, else `mean`.
      normalize: of these tasks: whether each vector is divided by its norm; None takes that of such
        a folder, else divides.
    """

    path: Annotated[str, MinLen(1), doc("a folder or a hub id")] = ""
    revision: str | None = None
    sha256: str | None = None
    config_sha256: str | None = None
    tokenizer_sha256: str | None = None
    from_scratch: bool = False
    layers: tuple[str, ...] = ()
    head: Code | None = None
    pooling: Literal["mean", "first", "last"] | None = None
    normalize: bool | None = None


@dataclasses.dataclass(frozen=True)
class GroupLossSettings:
    """What is minimised of texts that are compared with each other.

    Attributes:
      name: of `embedding`: `ranking`, each anchor's positive among all documents of the batch;
        `cosent`, pairs in the order of their scores; `cosine_error`, the squared error of a pair's
        cosine; `triplet`, a positive nearer than a negative. None takes `cosent` where pairs have
        a score, else `ranking`. Of `few_shot`: `cosine_error`. Of `reranking`: `pointwise`, which
        None takes, the cross-entropy of each passage by itself; `listwise`, that of a query's
        relevant ones among all of its.
      scale: of `ranking` and `cosent`: what cosines are multiplied by.
      margin: of `triplet`: by how much nearer, in Euclidean distance.
      matryoshka_dims: the loss is the sum of those of embeddings cut to so many of their first
        dimensions, such as 384,256,128; () takes all dimensions alone.
    """

    name: (
        Literal["ranking", "cosent", "cosine_error", "triplet", "pointwise", "listwise"] | None
    ) = None
    scale: Positive = 20.0
    margin: Amount = 1.0
    matryoshka_dims: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What is minimised, where a task has a choice; scores and validation losses are plain.

    Attributes:
      class_weights: `NAME=WEIGHT` for classes that count other than 1, such as `spam=2.5`; the one
        word `balanced` gives each class n / (c n_c), so that rare ones count as much.
      label_smoothing: share of the target that is spread evenly over all classes.
      focal_gamma: weighs each loss by (1 - p)^gamma, with p the probability of the right class.
      function: a loss of your own in the place of the task's, `MODULE:FUNCTION`, called with the
        outputs and the batch; the module comes from the working folder.
      groups: of texts that are compared with each other.
    """

    class_weights: tuple[str, ...] = ()
    label_smoothing: Share = 0.0
    focal_gamma: Amount = 0.0
    function: Code | None = None
    groups: Flat[GroupLossSettings] = GroupLossSettings()


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How it is updated.

    Attributes:
      name: `adamw` or `sgd`; or `MODULE:FUNCTION`, such as `optax:lion`, which gives a
        transformation of optax.
      arguments: `NAME=VALUE` that the function is called with, such as `b1=0.95`.
      learning_rate: the peak.
      schedule: after the warm-up: `linear` or `cosine` down to 0, or `constant`; or
        `MODULE:FUNCTION`, called with peak, steps and steps of warm-up, which gives the rate by
        step.
      final_fraction: of `linear` and `cosine`: where the rate ends, as a share of the peak.
      warmup_fraction: share of all steps in which the rate rises from 0.
      layer_decay: factor on the rate from one layer to the one below it; None for one rate.
      rate_multipliers: `REGEX=FACTOR` on the rate of the parameters so named, such as
        `classifier/=10`; the first match decides.
      weight_decay: not on biases and LayerNorm.
      clip_norm: largest global norm of the gradient; None does not clip.
      ema_decay: scores, the best step and what is exported are of an average of the trained
        parameters over the steps, in which each step counts this much less than the one after it,
        such as 0.999; None takes the parameters as each step leaves them.
      b1: AdamW's first decay.
      b2: AdamW's second decay.
      eps: AdamW's epsilon.
      momentum: of SGD.
    """

    name: Literal["adamw", "sgd"] | Code = "adamw"
    arguments: tuple[str, ...] = ()
    learning_rate: Positive = 5e-5
    schedule: Literal["linear", "cosine", "constant"] | Code = "linear"
    final_fraction: Share = 0.0
    warmup_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.1
    layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    rate_multipliers: tuple[str, ...] = ()
    weight_decay: Amount = 0.01
    clip_norm: Positive | None = 1.0
    ema_decay: Annotated[float, Interval(gt=0, lt=1)] | None = None
    b1: Share = 0.9
    b2: Share = 0.999
    eps: Positive = 1e-8
    momentum: Share = 0.9


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long, and when to look.

    Attributes:
      num_epochs: passes over the training data.
      num_steps: optimizer steps, instead of `num_epochs` where set.
      batch_size: examples a step; groups of texts, where these are drawn together.
      num_microbatches: the batch goes through the model in so many equal parts, one after the
        other, so that less memory is needed; the gradient is that of the whole batch.
      gradient_checkpointing: computes each layer again in the backward pass in place of keeping
        what it computed: less memory, about a third more work. With jax 0.10 XLA undoes it on a
        CPU.
      eval_batch_size: examples a step of evaluation and prediction.
      log_every_steps: one line of metrics.jsonl for so many steps.
      eval_every_steps: None evaluates at the end of every epoch.
      checkpoint_every_steps: besides the checkpoint at every evaluation; None for none.
      best_metric: chooses the best checkpoint; None takes the task's own (accuracy, pearson).
      scores: further scores of your own, `MODULE:FUNCTION`, each called with outputs and examples;
        `best_metric` may name them.
      hooks: what is called between steps, `MODULE:FUNCTION` of the moment or a `jaxtune.Hook`.
      patience: stop after so many evaluations without a better one; None never stops early.
      on_nonfinite: what to do where a loss or gradient is NaN or infinite: `stop`, with the numbers
        and rows of the step, or `skip`, which leaves out that step's update.
      max_seconds: stop after so many seconds with a checkpoint, from which the same command goes
        on; None does not.
      trackers: where the numbers go beside metrics.jsonl, of `tensorboard`, `wandb`, `mlflow` and
        `trackio`; None is `tensorboard` where tensorboardX is installed, `()` none.
    """

    num_epochs: Count = 3
    num_steps: Count | None = None
    batch_size: Count = 32
    num_microbatches: Count = 1
    gradient_checkpointing: bool = False
    eval_batch_size: Count = 64
    log_every_steps: Count = 10
    eval_every_steps: Count | None = None
    checkpoint_every_steps: Count | None = None
    best_metric: str | None = None
    scores: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    patience: Count | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_seconds: Positive | None = None
    trackers: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class PrecisionSettings:
    """Number formats.

    Attributes:
      compute_dtype: of the products; trained weights, moments, softmax, LayerNorm statistics and
        loss are float32 in any case.
      frozen_dtype: that frozen parameters are kept in.
      attention: `auto` chooses by device and length; `fused` takes one kernel that holds no scores
        and draws dropout itself, on a GPU or a TPU, which has been compiled for both and has run on
        neither; and on a GPU another for the sum and norm of a residual in BERT's kind of layer.
    """

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "fused"] = "auto"


@dataclasses.dataclass(frozen=True)
class ActivationCacheSettings:
    """What the frozen layers below all trained ones give is computed once for each example.

    Attributes:
      enabled: whether it is kept from one epoch to the next.
      dtype: that it is kept in.
      max_memory_bytes: what needs more goes into a file that is mapped into memory.
    """

    enabled: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_memory_bytes: WholeAmount = 2 * 2**30


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """Where the time goes.

    Attributes:
      steps: `START,STOP`: writes a trace of the training steps START to STOP - 1, counted from 0,
        to the workdir's `profile/`; the first step of each batch shape compiles, so 10 or more.
    """

    steps: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ParallelSettings:
    """How the devices of all processes share the work; they change no number but by rounding.

    A run may go on with other values than it began with.

    Attributes:
      mode: `jit`, on a mesh of the three axes below; or `pmap`, where all devices of one process
        have all parameters.
      data: devices that share the rows of a batch and, in mode jit, moments; -1 takes what the
        others leave.
      fsdp: devices that share the rows and, between steps, parameters and moments; -1 as above.
      tensor: devices that share heads and inner widths; -1 as above.
      rules: `REGEX=AXIS AXIS` with `fsdp`, `tensor` or - (whole) for each dimension of the
        parameters so named, such as `query/kernel$=fsdp tensor`; before those of the model family.
    """

    mode: Literal["jit", "pmap"] = "jit"
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
      task: what is learnt, one of TASKS.
      seed: of the new head, the order of the data and dropout.
      model: the pretrained weights.
      data: what is learnt from.
      tuning: what is trained.
      loss: what is minimised.
      distillation: what is learnt from a teacher.
      optimizer: how what is trained is updated.
      train: how long, and when to look.
      precision: number formats.
      activation_cache: what the frozen layers give.
      profile: where the time goes.
      parallel: how devices share the work.
    """

    task: Task = "classification"
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    tuning: TuningSettings = TuningSettings()
    loss: LossSettings = LossSettings()
    distillation: DistillationSettings = DistillationSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: TrainSettings = TrainSettings()
    precision: PrecisionSettings = PrecisionSettings()
    activation_cache: ActivationCacheSettings = ActivationCacheSettings()
    profile: ProfileSettings = ProfileSettings()
    parallel: ParallelSettings = ParallelSettings()
