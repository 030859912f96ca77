"""Whether the frozen layers of a stage run apart from its step, and are kept between epochs."""

from typing import NamedTuple

from jaxtune.frozen.held_out import HeldStates
from jaxtune.frozen.store import ActivationCache

ONE_EPOCH = "there is one epoch"
"""Why a run alone keeps nothing; runs after it may have a use for it."""


class TrunkPlan(NamedTuple):
    """What a stage does with the frozen layers below all that it trains.

    Attributes:
      depth: so many layers run without dropout, apart from the step; 0 for none.
      keeps: whether their outputs are kept for later epochs.
      reason: why not.
      kept: of an earlier run of the same trunk on the same batches; None begins with nothing.
      held: of held-out rows, where a run after this one has a use for them; None keeps none.
    """

    depth: int
    keeps: bool = False
    reason: str = ""
    kept: ActivationCache | None = None
    held: HeldStates | None = None


def plan_trunk(
    depth: int,
    *,
    frozen_dropout: bool,
    gradient_checkpointing: bool,
    is_random: bool,
    enabled: bool,
    several_epochs: bool,
) -> TrunkPlan:
    """Decides for one stage.

    Args:
      depth: frozen layers below all that is trained, as `frozen_layers` counts them.
      frozen_dropout: whether frozen layers have dropout too.
      gradient_checkpointing: whether each layer is computed again in the backward pass.
      is_random: whether an example changes with the epoch.
      enabled: whether anything may be kept.
      several_epochs: whether an example comes up more than once.
    """
    if not depth:
        return TrunkPlan(0)
    if frozen_dropout:
        return TrunkPlan(0, reason="config.tuning.frozen_dropout")
    if gradient_checkpointing:
        return TrunkPlan(0, reason="config.train.gradient_checkpointing")
    if is_random:
        return TrunkPlan(depth, reason="training changes the examples in each epoch")
    if not enabled:
        return TrunkPlan(depth, reason="config.activation_cache.enabled")
    if not several_epochs:
        return TrunkPlan(depth, reason=ONE_EPOCH)
    return TrunkPlan(depth, keeps=True)
