"""The scale plan for machines that are not there: memory, messages and time of a step.

Nothing is measured: shapes come from config fields, speeds from CLUSTER.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from scale_plan import Leaf, Message, Plan, Work, plan

from jaxtune.core import paths
from jaxtune.models.registry import find_family, find_head, parameter_shapes
from jaxtune.parallel.parts import choose_parts
from jaxtune.parallel.sharding import AXES, choose_specs, find_spec
from jaxtune.tuning import injection, partition
from jaxtune.tuning.depth import depths
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.registry import make_strategy


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Assumed speeds and sizes.

    Attributes:
      host_size: devices of a host.
      memory: bytes of a device.
      host_link: bytes/s that a device sends to others of its host.
      net_link: bytes/s that a device sends to other hosts.
      peak: FLOP/s of dense bfloat16 products.
      utilisation: share of `peak` that a step reaches where it waits for nothing.
    """

    host_size: int = 8
    memory: float = 80e9
    host_link: float = 450e9
    net_link: float = 50e9
    peak: float = 989e12
    utilisation: float = 0.4


@dataclasses.dataclass(frozen=True)
class Model:
    """A published model, by the fields of its `config.json`, and a batch for it.

    Attributes:
      fields: of the file.
      head: of jaxtune's registry.
      rows: of each device; devices along `tensor` share theirs.
      length: tokens of a row.
      read: tokens of a row that the head reads.
    """

    fields: Mapping[str, Any]
    head: str
    rows: int
    length: int
    read: int


CLUSTER = Cluster()
BERT_BASE = {"model_type": "bert"}
BERT_LARGE = BERT_BASE | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
GPT2_XL = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25}
MODELS = {
    "BERT-base": Model(BERT_BASE, "sequence", rows=32, length=512, read=8),
    "BERT-large": Model(BERT_LARGE, "sequence", rows=32, length=512, read=8),
    "GPT-2 XL": Model(GPT2_XL, "causal_lm", rows=4, length=1024, read=1024),
}
MESHES = ((8, 1, 1), (1, 8, 1), (1, 4, 2), (256, 1, 1), (1, 256, 1), (32, 8, 1), (32, 4, 2))
STRATEGIES = {"full": ("full", 4), "lora": ("lora", 4)}  # bytes of a frozen number
HEADER = (
    *("model", "strategy", "mesh", "kept GB", "peak GB", "fits", "wire GB"),
    *("messages, ms", "products, ms", "bound by"),
)


def extrapolation() -> str:
    """The assumptions, the table and what follows, as Markdown."""
    lines = ["| stated, not measured | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in assumptions()]
    lines += ["", f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows()]
    return "\n".join([*lines, "", *limits()])


def assumptions() -> Iterator[tuple[str, str]]:
    """Everything that the table rests on."""
    c = CLUSTER
    yield "device", f"H100 SXM, {c.memory / 1e9:g} GB, {c.peak / 1e12:g} TFLOP/s in dense bfloat16"
    yield "within a host of 8", f"NVLink, {c.host_link / 1e9:g} GB/s each way for each device"
    yield "between hosts", f"InfiniBand, {c.net_link / 1e9:g} GB/s each way for each device"
    yield "algorithm", "one ring for each group of devices, as fast as its slowest link; no latency"
    yield "products", f"{c.utilisation:.0%} of the peak"
    yield "axes", "`tensor` within `fsdp` within `data`, so the inner ones lie within a host"
    yield "numbers", "float32 parameters, gradients and moments; bfloat16 activations"
    for name, model in MODELS.items():
        each = f"{model.rows} rows of {model.length} tokens on each device"
        yield name, f"{each}, head `{model.head}` on {model.read} tokens of a row"


def rows() -> Iterator[list[str]]:
    """One for each model, strategy and mesh."""
    for name, model in MODELS.items():
        for title, (strategy, itemsize) in STRATEGIES.items():
            leaves, config = model_leaves(model, strategy, itemsize)
            for numbers in MESHES:
                sizes: dict[str, int] = dict(zip(AXES, numbers, strict=True))
                mesh = " x ".join(f"{axis} {n}" for axis, n in sizes.items() if n > 1)
                odd = indivisible(leaves, sizes)
                if odd:
                    yield [name, title, mesh, f"refused: {odd}", *[""] * (len(HEADER) - 4)]
                    continue
                found = plan(in_parts(leaves, sizes), sizes, model_work(model, config, sizes))
                yield [name, title, mesh, *cells(found, sizes)]


def cells(found: Plan, sizes: Mapping[str, int]) -> list[str]:
    """What the plan says, in the units of HEADER."""
    sending = sum(message.wire_bytes / link(message, sizes) for message in found.messages)
    computing = found.flops / (CLUSTER.peak * CLUSTER.utilisation)
    return [
        f"{(found.parameter_bytes + found.moment_bytes) / 1e9:.2f}",
        f"{found.peak_bytes / 1e9:.1f}",
        "yes" if found.peak_bytes <= CLUSTER.memory else "no",
        f"{found.wire_bytes / 1e9:.3f}",
        f"{1e3 * sending:.2f}",
        f"{1e3 * computing:.1f}",
        "messages" if sending > computing else "products",
    ]


def link(message: Message, sizes: Mapping[str, int]) -> float:
    """Bytes/s of the slowest link of the ring that a message goes around."""
    outermost = min(AXES.index(axis) for axis in message.axes if sizes[axis] > 1)
    span = math.prod(sizes[axis] for axis in AXES[outermost:])
    return CLUSTER.host_link if span <= CLUSTER.host_size else CLUSTER.net_link


def model_leaves(model: Model, strategy_name: str, itemsize: int) -> tuple[list[Leaf], Any]:
    """The parameters of a model with what a strategy adds; and its config."""
    family = find_family(model.fields, "fields")
    config = family.config_from_hf(model.fields, "fields")
    head = find_head(family, model.head)
    shapes = parameter_shapes(family.make_module(model.head, config, 2, jnp.bfloat16))
    strategy = make_strategy(strategy_name, {}, family_fields(family, head, config))
    key = jax.random.key(0)
    params = jax.eval_shape(lambda p, k: injection.extend(strategy, p, k), shapes, key)
    labels = partition.label(strategy, params)
    layers, _ = depths(labels, family.names.layers, family.names.below)
    found = []
    columns = (paths.flatten(params).items(), jax.tree.leaves(labels), layers)
    for (name, leaf), label, layer in zip(*columns, strict=True):
        axes = tuple(find_spec(family.sharding_rules, name))
        trained = label != partition.FROZEN
        size = 4 if trained else itemsize
        found.append(Leaf(name, leaf.shape, size, axes, trained, layer))
    return found, config


def model_work(model: Model, config: Any, sizes: Mapping[str, int]) -> Work:
    """A batch whose rows grow with the devices."""
    is_bert = model.fields["model_type"] == "bert"
    width = config.hidden_size if is_bert else config.n_embd
    batch = model.rows * math.prod(sizes.values())
    return Work(
        rows=batch,
        length=model.length,
        read=model.read,
        width=width,
        inner=config.intermediate_size if is_bert else 4 * width,
        heads=config.num_attention_heads if is_bert else config.n_head,
        layers=config.num_hidden_layers if is_bert else config.n_layer,
        outputs=config.vocab_size if model.head == "causal_lm" else 2,
        batch_bytes=batch * model.length * 4 * 5,  # int32: ids, types, positions, segments, mask
        activation_bytes=2,
    )


def in_parts(leaves: list[Leaf], sizes: Mapping[str, int]) -> list[Leaf]:
    """The leaves, of which `data` cuts the moments of those that it can."""
    shapes = {leaf.name: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for leaf in leaves}
    specs = choose_specs([(f"^{re.escape(x.name)}$", P(*x.axes)) for x in leaves], shapes, sizes)
    parts = choose_parts(specs, shapes, sizes)
    return [dataclasses.replace(leaf, in_parts="data" in parts[leaf.name]) for leaf in leaves]


def indivisible(leaves: list[Leaf], sizes: Mapping[str, int]) -> str:
    """The first axis that does not divide its dimension, in words."""
    for leaf in leaves:
        for size, axis in zip(leaf.shape, leaf.axes, strict=False):
            if axis is not None and size % sizes[axis]:
                return f"{axis} {sizes[axis]} does not divide {size}"
    return ""


def limits() -> list[str]:
    """What fits and what waits, from the bytes of a parameter: 4, a gradient of 4, moments of 8."""
    c, memory, host = CLUSTER, CLUSTER.memory / 1e9, CLUSTER.host_size
    kept = [
        (f"data {host}", 4 + 4 + 8 / host),
        ("data 256", 4 + 4 + 8 / 256),
        (f"fsdp {host}, all gathered at once", 4 + 4 + 12 / host),
        ("fsdp 256, all gathered at once", 4 + 4 + 12 / 256),
        (f"tensor {host}, where it cuts all", 16 / host),
    ]
    lines = ["| full fine-tuning | bytes a parameter | parameters in memory, no activations |"]
    lines.append("|---|---|---|")
    lines += [f"| {name} | {each:.2f} | {memory / each:.1f}e9 |" for name, each in kept]
    sent = [("full, data or fsdp", 8, 6), ("lora, fsdp", 4, 4), ("lora, fsdp, bfloat16", 2, 4)]
    lines += ["", "| tokens of a device and step under which it waits for messages | within a host"]
    lines[-1] += " | between hosts |"
    lines.append("|---|---|---|")
    for name, num_bytes, products in sent:
        rate = c.peak * c.utilisation * num_bytes / products
        within, between = rate * (host - 1) / host / c.host_link, rate * 255 / 256 / c.net_link
        lines.append(f"| {name} | {within:,.0f} | {between:,.0f} |")
    return lines
