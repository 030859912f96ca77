"""Gradual unfreezing: layers are thawed stage by stage."""

import dataclasses
from typing import Any, Literal

import jax

from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.tuning.depth import BELOW, LAYERS, depths
from jaxtune.tuning.partition import FROZEN

ABOVE = None
"""The depth of what stands above the last layer."""


@dataclasses.dataclass(frozen=True)
class Gradual:
    """Starts with what stands above the layers, then trains other layers in each stage.

    With the order `ulmfit` each stage adds the next layers below, and the last one the embeddings.
    With `chain_thaw` the embeddings alone are trained next, then the layers from the lowest on,
    each alone, and in the last stage everything. A stage that would train nothing, or the same as
    the one before it, is left out: a model may have nothing above its layers, or below.

    A leaf's label names the stage since which it has been trained without a break, so Adam goes on
    with what it knows of that leaf and starts afresh with the others.

    Source: Howard and Ruder 2018, ULMFiT, section 3.3; Felbo et al. 2017, DeepMoji, section 3.3
    (which also goes back to the best weights after each stage; jaxtune goes on from the last).

    Attributes:
      order: `ulmfit` or `chain_thaw`.
      stage_by: what ends a stage: `epoch`, `step`, or `plateau` of the validation score.
      stage_length: epochs (a fraction is fine), steps, or evaluations without a better score.
      layers_per_stage: how many layers a stage adds, or trains alone.
      layers: a regex whose first group is a layer's index, counted from the input.
      below: a regex for what lies below the first layer; None for nothing.
    """

    order: Literal["ulmfit", "chain_thaw"] = "ulmfit"
    stage_by: Literal["epoch", "step", "plateau"] = "epoch"
    stage_length: float = 1.0
    layers_per_stage: int = 1
    layers: str = LAYERS
    below: str | None = BELOW

    def labels(self, params: Params) -> Any:
        """The labels of the last stage, in which every leaf is trained."""
        return self.stages(params)[-1]

    def stages(self, params: Params) -> tuple[Any, ...]:
        """The labels of each stage, in order.

        Raises:
          UserError: the tree has no such layers, or a field is out of range.
        """
        whole = self.stage_by == "epoch" or float(self.stage_length).is_integer()
        if not self.stage_length > 0 or not whole:
            raise UserError(
                f"config.tuning.stage_length is {self.stage_length}: expected a positive number,"
                f" and a whole one for stages by {self.stage_by}."
            )
        found, total = depths(params, self.layers, self.below)
        if not 1 <= self.layers_per_stage <= total:
            raise UserError(
                f"config.tuning.layers_per_stage is {self.layers_per_stage}, but the model has"
                f" {total} layers: expected 1 to {total}."
            )
        thawed = self._thawed(total, set(found))
        structure = jax.tree.structure(params)
        return tuple(
            jax.tree.unflatten(structure, [_label(thawed, index, depth) for depth in found])
            for index in range(len(thawed))
        )

    def _thawed(self, total: int, present: set[int | None]) -> list[set[int | None]]:
        """The depths that each stage trains, of those that the model has."""
        size = self.layers_per_stage
        if self.order == "ulmfit":
            lowest = [total, *range(total - size, 0, -size), 0, -1]
            stages = [{ABOVE, *range(low, total)} for low in lowest]
        else:
            groups = [set(range(low, min(low + size, total))) for low in range(0, total, size)]
            stages = [{ABOVE}, {-1}, *groups, {ABOVE, *range(-1, total)}]
        stages = [stage & present for stage in stages]
        pairs = zip(stages, [set(), *stages], strict=False)
        return [stage for stage, before in pairs if stage and stage != before]


def _label(thawed: list[set[int | None]], index: int, depth: int | None) -> str:
    """FROZEN, or the first stage of those without a break up to `index` that train this depth."""
    if depth not in thawed[index]:
        return FROZEN
    while index > 0 and depth in thawed[index - 1]:
        index -= 1
    return f"stage_{index}"
