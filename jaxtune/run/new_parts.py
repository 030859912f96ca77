"""Newly drawn parts of a model are trained, whatever a strategy freezes."""

from typing import Any

import jax

from jaxtune.core import paths
from jaxtune.core.types import Params
from jaxtune.models.pretrained import Pretrained
from jaxtune.settings import Settings
from jaxtune.tuning import partition


def with_new_parts(
    settings: Settings, stage_labels: tuple[Any, ...], params: Params, pretrained: Pretrained
) -> tuple[tuple[Any, ...], list[str]]:
    """Trains newly drawn parts that the strategy would leave at random values; says so.

    Not where all is drawn: there the strategy itself is what somebody wants to measure.
    """
    fitted = pretrained.design.head.fitted
    ever = jax.tree.map(lambda *names: any(n != partition.FROZEN for n in names), *stage_labels)
    if settings.model.from_scratch:
        under = tuple(f"{part}/" for part in fitted)
        if all(used for name, used in paths.flatten(ever).items() if not name.startswith(under)):
            return stage_labels, []
        kept = f"what {settings.tuning.name} freezes stays as it was drawn"
        return stage_labels, [f"config.model.from_scratch: {kept}"]
    idle = [
        part
        for part in pretrained.report.new
        if part not in fitted
        and not all(
            used for name, used in paths.flatten(ever).items() if name.startswith(f"{part}/")
        )
    ]
    if not idle:
        return stage_labels, []
    names = ", ".join(idle)
    if "rules" in settings.tuning.name.split("+"):
        return stage_labels, [f"{names}: newly initialised, and partly frozen by your rules"]
    thawed = tuple(partition.thaw(labels, idle, "new") for labels in stage_labels)
    return thawed, [f"{names}: newly initialised, so trained too"]
