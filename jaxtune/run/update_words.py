"""How parameters are updated, in words."""

from collections.abc import Mapping
from typing import Any

from jaxtune.core import trees
from jaxtune.core.types import Params
from jaxtune.core.units import human_bytes
from jaxtune.settings import OptimizerSettings


def optimizer_rows(o: OptimizerSettings, trainable: Params) -> list[tuple[str, str]]:
    """The optimizer with its numbers, and of what average the scores are.

    Args:
      o: of a run.
      trainable: what it trains first; only shapes are read.
    """
    clip = f", clip {o.clip_norm}" if o.clip_norm else ""
    warm = f"warm-up {o.warmup_fraction:.0%}"
    name = " ".join([o.name, *o.arguments])
    end = f" to {o.final_fraction:g} of it" if o.final_fraction else ""
    rate = f"{o.schedule} from {o.learning_rate:g}{end}, {warm}"
    rows = [("optimizer", f"{name}, {rate}, decay {o.weight_decay}{clip}")]
    if o.ema_decay is not None:
        size = human_bytes(4 * trees.count(trainable))
        told = f"scores and export take a moving average of weights, decay {o.ema_decay:g}"
        rows.append(("", f"{told} ({size} more)"))
    return rows


def of_average(results: Mapping[str, Any]) -> str:
    """Of what average the weights at the best step are, as results.json says; empty for none."""
    decay = results.get("ema_decay")
    return "" if decay is None else f", weights averaged up to it with decay {decay:g}"
