"""Whether the frozen layers of a stage run apart from its step, and are kept between epochs."""

from typing import Any, NamedTuple

from jaxtune.models.family import Family
from jaxtune.settings import Settings
from jaxtune.tuning.depth import frozen_layers


class TrunkPlan(NamedTuple):
    """What a stage does with the frozen layers below all that it trains.

    Attributes:
      depth: so many layers run without dropout, apart from the step; 0 for none.
      keeps: whether their outputs are kept for later epochs.
      reason: why not.
    """

    depth: int
    keeps: bool = False
    reason: str = ""


def plan_trunk(
    settings: Settings, family: Family, labels: Any, train: Any, several_epochs: bool
) -> TrunkPlan:
    """Decides for one stage.

    Args:
      settings: of the run.
      family: names the layers.
      labels: of the stage, one for each leaf.
      train: the training examples; `is_random` says whether an example changes with the epoch.
      several_epochs: whether an example comes up more than once.
    """
    depth = frozen_layers(labels, family.names.layers, family.names.below)
    if not depth:
        return TrunkPlan(0)
    if settings.tuning.frozen_dropout:
        return TrunkPlan(0, reason="config.tuning.frozen_dropout")
    if settings.train.gradient_checkpointing:
        return TrunkPlan(0, reason="config.train.gradient_checkpointing")
    if train.is_random:
        return TrunkPlan(depth, reason="training changes the examples in each epoch")
    if not settings.activation_cache.enabled:
        return TrunkPlan(depth, reason="config.activation_cache.enabled")
    if not several_epochs:
        return TrunkPlan(depth, reason="there is one epoch")
    return TrunkPlan(depth, keeps=True)
