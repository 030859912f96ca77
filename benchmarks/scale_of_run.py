"""Part of benchmarks/scaling.py and aot.py: the scale plan of a run that is prepared."""

import math
from typing import Any

import jax
from scale_plan import Leaf, Plan, Work

from jaxtune.analysis.messages import KINDS
from jaxtune.core import paths
from jaxtune.models.trunk import STATES, num_layers
from jaxtune.run.setup import Run
from jaxtune.tuning import partition
from jaxtune.tuning.depth import depths


def planned(found: Plan) -> dict[str, float]:
    """Bytes of a plan, by the names that the tables have."""
    return {
        "arguments": found.argument_bytes,
        "temporaries": found.temporary_bytes,
        "wire": found.wire_bytes,
        **{kind: found.sent(kind) for kind in KINDS},
    }


def leaves_of(run: Run, number: int) -> list[Leaf]:
    """The parameters of a stage, by its number, as the plan takes them."""
    names = run.pretrained.design.source.family.names
    labels, depth = run.tuning.stage_labels[number], run.tuning.trunks[number].depth
    found, _ = depths(labels, names.layers, names.below)
    columns = (paths.flatten(run.params).items(), jax.tree.leaves(labels), found)
    return [
        Leaf(
            name=name,
            shape=leaf.shape,
            itemsize=leaf.dtype.itemsize,
            axes=() if run.sharding is None else tuple(run.sharding.spec(name)),
            is_trained=label != partition.FROZEN,
            layer=layer,
            is_used=not depth or layer is None or layer >= depth,
            in_parts=run.sharding is not None and "data" in run.sharding.part(name),
        )
        for (name, leaf), label, layer in zip(*columns, strict=True)
    ]


def work_of(run: Run, batch: dict[str, Any]) -> Work:
    """What a step on a batch of texts computes; its fields may be shapes."""
    config: Any = run.pretrained.config
    rows, length = (batch["input_ids"] if "input_ids" in batch else batch[STATES]).shape[:2]
    reads = getattr(run.pretrained.module.top, "reads", None)
    read = length
    if reads is not None:
        places = batch.get(f"{reads}_tokens")
        read = 1 if places is None else places.shape[1]
    width = first(config, "hidden_size", "n_embd", "dim")
    return Work(
        rows=rows,
        length=length,
        read=read,
        width=width,
        inner=first(config, "intermediate_size", "n_inner", "hidden_dim") or 4 * width,
        heads=first(config, "num_attention_heads", "n_head", "n_heads"),
        layers=num_layers(run.pretrained.module),
        outputs=run.pretrained.design.outputs.size,
        batch_bytes=sum(math.prod(x.shape) * x.dtype.itemsize for x in batch.values()),
    )


def first(config: Any, *names: str) -> int:
    """The first field of a model's config that it has."""
    return next(getattr(config, name) for name in names if hasattr(config, name))
