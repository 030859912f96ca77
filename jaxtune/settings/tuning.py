"""Settings of what is trained; a field that is None takes the strategy's own default."""

import dataclasses
from typing import Literal

from jaxtune.settings.fields import Flat


@dataclasses.dataclass(frozen=True)
class GradualSettings:
    """The stages of `gradual`.

    Attributes:
      order: of `gradual`: `ulmfit` (from the top, each stage adds layers) or `chain_thaw` (each
        part alone, then all); `ulmfit` if unset.
      stage_by: of `gradual`: what ends a stage: `epoch`, `step` or `plateau` (of the validation
        score); `epoch` if unset.
      stage_length: of `gradual`: epochs (a fraction is fine), steps, or evaluations without a
        better score; 1 if unset.
      layers_per_stage: of `gradual`: 1 if unset.
    """

    order: Literal["ulmfit", "chain_thaw"] | None = None
    stage_by: Literal["epoch", "step", "plateau"] | None = None
    stage_length: float | None = None
    layers_per_stage: int | None = None


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """The low-rank terms of `lora`.

    Attributes:
      rank: of `lora`: inner dimension of the low-rank term; 8 if unset.
      alpha: of `lora`: the term is scaled by alpha / rank; 16 if unset.
      dropout: of `lora`: rate on the term's input; 0 if unset.
      use_rslora: of `lora`: scale by alpha / sqrt(rank).
      use_dora: of `lora`: train the length of each column too.
    """

    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None


@dataclasses.dataclass(frozen=True)
class AddedSettings:
    """Where the strategies that add parameters put them, and how many.

    Attributes:
      targets: of `lora`, `ia3` and `adapter`: regexes over the names of the matrices that they act
        on; of `prefix`: of the key projections.
      feedforward_targets: of `ia3`: the same for the matrices whose inputs it scales.
      placement: of `adapter`: `houlsby` (after attention and feed-forward) or `pfeiffer` (after
        feed-forward); `pfeiffer` if unset.
      bottleneck_size: of `adapter`: inner dimension; 64 if unset.
      prefix_length: of `prefix`: tokens put before keys and values; 16 if unset.
    """

    targets: tuple[str, ...] = ()
    feedforward_targets: tuple[str, ...] = ()
    placement: Literal["houlsby", "pfeiffer"] | None = None
    bottleneck_size: int | None = None
    prefix_length: int | None = None


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
      gradual: the stages of `gradual`.
      lora: the terms of `lora`.
      added: where parameters are added.
      frozen_dropout: whether the frozen layers below all trained ones have dropout in training, as
        other tools have it; then nothing of them can be computed ahead.
      batch_statistics: of models with batch normalisation: whether the running statistics follow
        the training batches; `trained` with `full` and `frozen` otherwise, if unset.
    """

    name: str = "full"
    num_layers: int | None = None
    rules: tuple[str, ...] = ()
    gradual: Flat[GradualSettings] = GradualSettings()
    lora: Flat[LoraSettings] = LoraSettings()
    added: Flat[AddedSettings] = AddedSettings()
    frozen_dropout: bool = False
    batch_statistics: Literal["trained", "frozen"] | None = None
