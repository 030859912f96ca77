"""Every setting of a run: its name, its type, its default and its meaning, in one place.

`jaxtune.run.config` turns these into the ConfigDict that config files fill and the command line
overrides; the code below it takes these frozen dataclasses. None means: not set.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Len, MinLen, doc

Task = Literal[
    "classification",
    "multi_label",
    "regression",
    "token_classification",
    "question_answering",
    "causal_lm",
    "masked_lm",
    "image_classification",
]
"""What `config.task` may be."""

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Interval(ge=0, lt=1)]
Amount = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Where the pretrained weights are.

    Attributes:
      path: a folder in the transformers layout, or a hub id.
      revision: branch, tag or commit of a hub id.
      sha256: expected digest of the weight files (joined in the order of their names).
      from_scratch: draws all parameters; of the folder only `config.json` is read.
    """

    path: Annotated[str, MinLen(1), doc("a folder or a hub id")] = ""
    revision: str | None = None
    sha256: str | None = None
    from_scratch: bool = False


@dataclasses.dataclass(frozen=True)
class AugmentationSettings:
    """Random changes to the images of training, drawn anew in each epoch.

    Attributes:
      crop: `none`; `pad`, after resizing: shifted by up to an eighth of each side, black beyond the
        edge; `resized`, in the place of resizing: a part of 8 % to 100 % of the area.
      flip: mirrors every other image, left to right.
      rand_augment_num_ops: how many operations RandAugment draws for an image; 0 for none.
      rand_augment_magnitude: their strength.
      mixup_alpha: images and labels of a batch are mixed in pairs, by a share drawn from
        Beta(alpha, alpha); 0 for no mixup.
      cutmix_alpha: the same, by pasting a box; with `mixup_alpha` too, each batch draws one of
        them; 0 for no cutmix.
    """

    crop: Literal["none", "pad", "resized"] = "none"
    flip: bool = False
    rand_augment_num_ops: Annotated[int, Ge(0)] = 0
    rand_augment_magnitude: Annotated[int, Interval(ge=0, le=30)] = 9
    mixup_alpha: Amount = 0.0
    cutmix_alpha: Amount = 0.0


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the texts or images are and how they become batches.

    Attributes:
      path: a file (csv, tsv, json lines, parquet), a folder of them with splits by file name, or
        the hub id of a dataset; of images also a folder `[train|validation|test/]CLASS/IMAGE`.
      name: a configuration of a hub dataset.
      sha256: expected digest of the local data files (joined in the order of their names).
      encoding: of csv, tsv and json files.
      column_names: for csv and tsv files without a header row.
      text_columns: one, or two for pairs.
      image_column: images as `datasets` keeps them, or the paths of their files.
      label_column: class, number, list of classes, tags or answers, as the task has it.
      label_columns: several targets of a regression, or one column of 0 and 1 for each class, in
        the place of `label_column`.
      max_length: tokens of an example, special ones included; longer ones are cut. A language model
        joins its texts and cuts them into blocks of so many.
      max_train_examples: a random subset (stratified by class) of so many.
      max_eval_examples: the same for each of validation and test.
      validation_size: where the data has no validation split, so much of the training split is
        held out; a share if below 1, else a number of rows.
      test_size: the same where the data has no test split; None goes without.
      split_seed: of the splits and subsets, apart from the run's own seed.
      layout: of training and evaluation: `packed` puts several examples into a row, so that little
        is padding; `bucketed` makes batches of like lengths and pads to one of a few, `padded` to
        one.
      token_dropout: the chance of each token of a training text to be hidden, anew in each epoch,
        behind the mask token or, without one, that of unknown words; of tasks on whole texts.
      augmentation: of images.
      mask_probability: of `masked_lm`: share of the words that are hidden and predicted.
      doc_stride: of `question_answering`: tokens that two windows on one long context share.
      max_answer_length: of `question_answering`: of a predicted answer, in tokens.
      n_best: of `question_answering`: answers to a question that are compared and reported.
      no_answer_threshold: of `question_answering`: a question has no answer where the score for
        that exceeds the best answer's by more than this, in nats.
      allow_no_answer: of `question_answering`: None allows it where the training data has
        questions without an answer.
    """

    path: Annotated[str, MinLen(1), doc("a file, a folder or a hub id of a dataset")] = ""
    name: str | None = None
    sha256: str | None = None
    encoding: str = "utf-8"
    column_names: tuple[str, ...] = ()
    text_columns: Annotated[tuple[str, ...], Len(1, 2), doc("one or two names")] = ("text",)
    image_column: str = "image"
    label_column: str = "label"
    label_columns: tuple[str, ...] = ()
    max_length: Annotated[int, Ge(3)] = 128
    max_train_examples: Count | None = None
    max_eval_examples: Count | None = None
    validation_size: Positive = 0.1
    test_size: Positive | None = None
    split_seed: Annotated[int, Ge(0)] = 0
    layout: Literal["packed", "bucketed", "padded"] = "packed"
    token_dropout: Share = 0.0
    augmentation: AugmentationSettings = AugmentationSettings()
    mask_probability: Annotated[float, Interval(gt=0, lt=1)] = 0.15
    doc_stride: Annotated[int, Ge(0)] = 64
    max_answer_length: Count = 30
    n_best: Count = 20
    no_answer_threshold: float = 0.0
    allow_no_answer: bool | None = None


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """What is trained.

    Attributes:
      name: `full`, `head`, `last_layers`, `first_layers_frozen`, `embeddings_frozen`, `bitfit`,
        `layernorm`, `rules`, `gradual`, `lora`, `ia3`, `adapter` or `prefix`; several joined by
        `+` train what any of them trains, such as `lora+layernorm`.
      num_layers: of `last_layers`: how many are trained, counted from the output; of
        `first_layers_frozen`: how many are frozen, counted from the input.
      rules: of `rules`: ordered `REGEX=frozen` and `REGEX=trainable` over parameter names; the
        first match decides.
      order: of `gradual`: `ulmfit` (from the top, each stage adds layers) or `chain_thaw` (each
        part alone, then all); `ulmfit` if unset.
      stage_by: of `gradual`: what ends a stage: `epoch`, `step` or `plateau` (of the validation
        score); `epoch` if unset.
      stage_length: of `gradual`: epochs (a fraction is fine), steps, or evaluations without a
        better score; 1 if unset.
      layers_per_stage: of `gradual`: 1 if unset.
      targets: of `lora`, `ia3` and `adapter`: regexes over the names of the matrices that they act
        on; of `prefix`: of the key projections.
      rank: of `lora`: inner dimension of the low-rank term; 8 if unset.
      alpha: of `lora`: the term is scaled by alpha / rank; 16 if unset.
      dropout: of `lora`: rate on the term's input; 0 if unset.
      use_rslora: of `lora`: scale by alpha / sqrt(rank).
      use_dora: of `lora`: train the length of each column too.
      feedforward_targets: of `ia3`: the same for the matrices whose inputs it scales.
      placement: of `adapter`: `houlsby` (after attention and feed-forward) or `pfeiffer` (after
        feed-forward); `pfeiffer` if unset.
      bottleneck_size: of `adapter`: inner dimension; 64 if unset.
      prefix_length: of `prefix`: tokens put before keys and values; 16 if unset.
      frozen_dropout: whether the frozen layers below all trained ones have dropout in training, as
        other tools have it; then nothing of them can be computed ahead.
      batch_statistics: of models with batch normalisation: whether the running statistics follow
        the training batches; `trained` with `full` and `frozen` otherwise, if unset.
    """

    name: str = "full"
    num_layers: int | None = None
    rules: tuple[str, ...] = ()
    order: Literal["ulmfit", "chain_thaw"] | None = None
    stage_by: Literal["epoch", "step", "plateau"] | None = None
    stage_length: float | None = None
    layers_per_stage: int | None = None
    targets: tuple[str, ...] = ()
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    feedforward_targets: tuple[str, ...] = ()
    placement: Literal["houlsby", "pfeiffer"] | None = None
    bottleneck_size: int | None = None
    prefix_length: int | None = None
    frozen_dropout: bool = False
    batch_statistics: Literal["trained", "frozen"] | None = None


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """What is minimised, where a task has a choice; scores and validation losses are plain.

    Attributes:
      class_weights: `NAME=WEIGHT` for classes that count other than 1, such as `spam=2.5`; the one
        word `balanced` gives each class n / (c n_c), so that rare ones count as much.
      label_smoothing: share of the target that is spread evenly over all classes.
      focal_gamma: weighs each loss by (1 - p)^gamma, with p the probability of the right class.
    """

    class_weights: tuple[str, ...] = ()
    label_smoothing: Share = 0.0
    focal_gamma: Amount = 0.0


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """How it is updated.

    Attributes:
      name: `adamw` or `sgd`.
      learning_rate: the peak.
      schedule: after the warm-up: `linear` or `cosine` down to 0, or `constant`.
      warmup_fraction: share of all steps in which the rate rises from 0.
      layer_decay: factor on the rate from one layer to the one below it; None for one rate.
      rate_multipliers: `REGEX=FACTOR` on the rate of the parameters so named, such as
        `classifier/=10`; the first match decides.
      weight_decay: not on biases and LayerNorm.
      clip_norm: largest global norm of the gradient; None does not clip.
      b1: AdamW's first decay.
      b2: AdamW's second decay.
      eps: AdamW's epsilon.
      momentum: of SGD.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 5e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.1
    layer_decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    rate_multipliers: tuple[str, ...] = ()
    weight_decay: Amount = 0.01
    clip_norm: Positive | None = 1.0
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
      batch_size: examples a step.
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
      patience: stop after so many evaluations without a better one; None never stops early.
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
    patience: Count | None = None


@dataclasses.dataclass(frozen=True)
class PrecisionSettings:
    """Number formats.

    Attributes:
      compute_dtype: of the products; trained weights, moments, softmax, LayerNorm statistics and
        loss are float32 in any case.
      frozen_dtype: that frozen parameters are kept in.
    """

    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"


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
    max_memory_bytes: Annotated[int, Ge(0)] = 2 * 2**30


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
      data: devices that share the rows of a batch; -1 takes what the others leave.
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
    optimizer: OptimizerSettings = OptimizerSettings()
    train: TrainSettings = TrainSettings()
    precision: PrecisionSettings = PrecisionSettings()
    activation_cache: ActivationCacheSettings = ActivationCacheSettings()
    profile: ProfileSettings = ProfileSettings()
    parallel: ParallelSettings = ParallelSettings()


def to_json(settings: Settings) -> str:
    """The resolved settings, as a run's config.json holds them."""
    return json.dumps(dataclasses.asdict(settings), indent=2) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two nested dicts differ, as `a.b was 1, is 2`."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r}, is {after!r}")
    return found
