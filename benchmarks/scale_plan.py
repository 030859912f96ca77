"""The scale plan: what one device keeps and sends in a training step, from shapes alone.

    found = plan(leaves, {"data": 4, "fsdp": 2, "tensor": 1}, Work(rows=32, length=128, ...))

The formulas stand in SCALING.md. Nothing here knows a model: leaves and the axes that cut them come
from a parameter tree and a `Sharding`.

Source: Rajbhandari et al. 2020, ZeRO, section 7 (what is sent over `data` and `fsdp`); Shoeybi et
al. 2019, Megatron-LM, section 3 (over `tensor`); Korthikanti et al. 2022, Reducing Activation
Recomputation, section 4 (the estimate of activations).
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from jaxtune.analysis.messages import wire_bytes

ROWS = ("data", "fsdp")
FLOAT = 4  # bytes of what is trained, its gradient and its moments
NORMS = 2  # global norms of the gradient in a step: the one that is reported, the one that clips

_ATTENTION = re.compile(r"atten|attn")
_QUERY = re.compile(r"/(?:query|q_lin|q_proj)/")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter.

    Attributes:
      name: its path.
      shape: of the whole.
      itemsize: bytes of a number.
      axes: of each dimension, the axis that cuts it, or None; may be shorter than `shape`.
      is_trained: whether it has a gradient and moments.
      layer: its number; -1 below all layers; None above them.
      is_used: whether the step reads it. What stands below kept activations is not.
      in_parts: whether `data` cuts its moments and its summed gradient.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    axes: tuple[str | None, ...]
    is_trained: bool
    layer: int | None = None
    is_used: bool = True
    in_parts: bool = False

    @property
    def size(self) -> int:
        """Numbers in the whole."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step computes.

    Attributes:
      rows: of the batch, over all devices.
      length: tokens of a row.
      read: tokens of a row that the head reads; the last layer computes only these.
      width: d.
      inner: f, of the feed-forward block.
      heads: of attention.
      layers: of the model.
      outputs: numbers that the head gives for a token that it reads.
      batch_bytes: of all arrays of the batch, over all devices.
      activation_bytes: of a number between the products.
      moments: float32 copies of a trained leaf that the optimizer keeps.
    """

    rows: int
    length: int
    read: int
    width: int
    inner: int
    heads: int
    layers: int
    outputs: int
    batch_bytes: int
    activation_bytes: int = 4
    moments: int = 2


@dataclasses.dataclass(frozen=True)
class Message:
    """Collectives of one kind over the same axes, for one purpose.

    Attributes:
      kind: as HLO calls it.
      what: the purpose.
      axes: over which devices.
      group: so many devices.
      num_bytes: of what is whole: what an all-gather gives, what a reduce-scatter takes.
    """

    kind: str
    what: str
    axes: tuple[str, ...]
    group: int
    num_bytes: int

    @property
    def wire_bytes(self) -> float:
        """What each device sends in a ring."""
        return wire_bytes(self.kind, self.num_bytes, self.group)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Of one device.

    Attributes:
      parameter_bytes: kept, whether the step reads them or not.
      moment_bytes: kept.
      batch_bytes: its rows.
      argument_bytes: what the step reads of these three.
      gathered_bytes: parameters that are whole over `fsdp` in the step.
      gradient_bytes: of trained leaves, whole over `fsdp`.
      activation_bytes: an estimate.
      messages: what is sent, one for each kind, purpose and set of axes.
      flops: of products, forward and backward.
    """

    parameter_bytes: int
    moment_bytes: int
    batch_bytes: int
    argument_bytes: int
    gathered_bytes: int
    gradient_bytes: int
    activation_bytes: int
    messages: tuple[Message, ...]
    flops: float

    @property
    def temporary_bytes(self) -> int:
        """An estimate: all three at once, which no moment of a step quite has."""
        return self.gathered_bytes + self.gradient_bytes + self.activation_bytes

    @property
    def peak_bytes(self) -> int:
        """An estimate of all memory."""
        kept = self.parameter_bytes + self.moment_bytes + self.batch_bytes
        return kept + self.temporary_bytes

    @property
    def wire_bytes(self) -> float:
        """What each device sends in a step, by rings."""
        return sum(message.wire_bytes for message in self.messages)

    def sent(self, kind: str) -> int:
        """Bytes of all collectives of a kind."""
        return sum(message.num_bytes for message in self.messages if message.kind == kind)


def plan(leaves: Sequence[Leaf], sizes: Mapping[str, int], work: Work) -> Plan:
    """Computes the plan.

    Args:
      leaves: all parameters.
      sizes: devices along `data`, `fsdp` and `tensor`.
      work: what the step computes.
    """
    used = [leaf for leaf in leaves if leaf.is_used]
    trained = [leaf for leaf in used if leaf.is_trained]
    batch = work.batch_bytes // math.prod(sizes[axis] for axis in ROWS)
    own = {leaf.name: part(leaf, sizes, ("fsdp", "tensor")) for leaf in leaves}
    kept = sum(own[leaf.name] // (sizes["data"] if leaf.in_parts else 1) for leaf in trained)
    moments = kept * FLOAT * work.moments
    return Plan(
        parameter_bytes=sum(own[leaf.name] * leaf.itemsize for leaf in leaves),
        moment_bytes=moments,
        batch_bytes=batch,
        argument_bytes=sum(own[leaf.name] * leaf.itemsize for leaf in used) + moments + batch,
        gathered_bytes=sum(
            part(leaf, sizes, ("tensor",)) * leaf.itemsize for leaf in used if is_cut(leaf, sizes)
        ),
        gradient_bytes=sum(part(leaf, sizes, ("tensor",)) for leaf in trained) * FLOAT,
        activation_bytes=activations(leaves, sizes, work),
        messages=_added(_messages(used, sizes, work)),
        flops=flops(used, sizes, work),
    )


def part(leaf: Leaf, sizes: Mapping[str, int], axes: Sequence[str]) -> int:
    """Numbers of a leaf on one device, cut by some axes alone."""
    return leaf.size // math.prod(sizes[axis] for axis in axes if axis in leaf.axes)


def is_cut(leaf: Leaf, sizes: Mapping[str, int], axis: str = "fsdp") -> bool:
    """Whether devices along an axis have parts of it."""
    return axis in leaf.axes and sizes[axis] > 1


def lowest_layer(leaves: Sequence[Leaf], layers: int) -> int:
    """Where the backward pass ends: a layer, -1 for what is below, or `layers` for the head."""
    found = [leaf.layer for leaf in leaves if leaf.is_trained and leaf.layer is not None]
    return min(found, default=layers)


def activations(leaves: Sequence[Leaf], sizes: Mapping[str, int], work: Work) -> int:
    """An estimate of the bytes of activations: those that the backward pass reads.

    Of each token and layer 9 d (inputs, queries, keys, values, sums, LayerNorms), and of what
    `tensor` shares out 2 f (before and after the activation) and 2 h t (softmax, with dropout).
    """
    tokens = work.rows * work.length // math.prod(sizes[axis] for axis in ROWS)
    read = tokens * work.read // work.length
    count = work.layers - max(lowest_layer(leaves, work.layers), 0)
    shared = 2 * work.inner + 2 * work.heads * work.length
    each = 9 * work.width + shared // sizes["tensor"]
    kept = 0
    if count:
        kept = each * (tokens * (count - 1) + read)
    elif any(leaf.is_used and leaf.layer is not None for leaf in leaves):
        kept = each * tokens  # one layer at a time
    return kept * work.activation_bytes + 2 * read * work.outputs * FLOAT


def flops(used: Sequence[Leaf], sizes: Mapping[str, int], work: Work) -> float:
    """Of one device: two for each token and number of a matrix, in each of up to three passes.

    The passes are forward, gradients of inputs (from the lowest trained layer on), gradients of
    weights. Attention is 4 t d a layer and token more forward, and twice that backward. All
    layers are taken to compute all tokens.
    """
    lowest = lowest_layer(used, work.layers)
    tokens = work.rows * work.length
    matrices = [leaf for leaf in used if len(leaf.shape) == 2 and leaf.layer not in (None, -1)]
    total = 0.0
    for leaf in matrices:
        assert leaf.layer is not None
        passes = 1 + (leaf.layer >= lowest) + leaf.is_trained
        total += 2.0 * leaf.size * tokens * passes
    for layer in {leaf.layer for leaf in matrices}:
        assert layer is not None
        total += 4.0 * work.length * work.width * tokens * (3 if layer >= lowest else 1)
    if work.outputs > work.width:  # logits of a vocabulary, whose matrix may lie below
        read = work.rows * work.read
        total += (6.0 if lowest == -1 else 4.0) * read * work.width * work.outputs
    return total / math.prod(sizes.values())


def _messages(used: Sequence[Leaf], sizes: Mapping[str, int], work: Work) -> Iterator[Message]:
    """Every collective among two devices or more."""
    for message in (
        *_of_parameters(used, sizes),
        *_of_activations(used, sizes, work),
        *_of_numbers(used, sizes),
    ):
        if message.group > 1 and message.num_bytes:
            yield message


def _of_parameters(used: Sequence[Leaf], sizes: Mapping[str, int]) -> Iterator[Message]:
    """Gathered parameters and summed gradients; over `data`, parameters once they are updated."""
    data, fsdp = sizes["data"], sizes["fsdp"]
    for leaf in used:
        whole = part(leaf, sizes, ("tensor",))
        if is_cut(leaf, sizes):
            what = "parameters" if leaf.is_trained else "frozen parameters"
            yield Message("all-gather", what, ("fsdp",), fsdp, whole * leaf.itemsize)
        if not leaf.is_trained:
            continue
        own, others = whole * FLOAT, ROWS
        if is_cut(leaf, sizes):
            yield Message("reduce-scatter", "gradients", ("fsdp",), fsdp, own)
            own, others = own // fsdp, ("data",)
        if leaf.in_parts and data > 1:
            yield Message("reduce-scatter", "gradients", ("data",), data, own)
            yield Message("all-gather", "new parameters", ("data",), data, own)
            own, others = own // data, tuple(axis for axis in others if axis != "data")
        group = math.prod(sizes[axis] for axis in others)
        yield Message("all-reduce", "gradients", others, group, own)


def _of_activations(
    used: Sequence[Leaf], sizes: Mapping[str, int], work: Work
) -> Iterator[Message]:
    """Over `tensor`: outputs of matrices cut by rows, gradients of inputs of those cut by columns.

    The last layer computes the tokens that the head reads, but for keys and values.
    """
    if sizes["tensor"] == 1:
        return
    lowest = lowest_layer(used, work.layers)
    rows = work.rows // math.prod(sizes[axis] for axis in ROWS)
    for leaf in used:
        if len(leaf.shape) != 2 or leaf.layer is None or "tensor" not in leaf.axes:
            continue
        in_attention = bool(_ATTENTION.search(leaf.name))
        is_cut_by_rows = leaf.axes[0] == "tensor"
        few = leaf.layer == work.layers - 1 and (
            is_cut_by_rows or not in_attention or bool(_QUERY.search(leaf.name))
        )
        tokens = rows * (work.read if few else work.length)
        width = leaf.shape[1] if is_cut_by_rows else leaf.shape[0]
        goes_back = leaf.layer > lowest or (leaf.layer == lowest and not in_attention)
        if is_cut_by_rows or goes_back:
            what = "activations" if is_cut_by_rows else "gradients of activations"
            size = tokens * width * work.activation_bytes
            yield Message("all-reduce", what, ("tensor",), sizes["tensor"], size)


def _of_numbers(used: Sequence[Leaf], sizes: Mapping[str, int]) -> Iterator[Message]:
    """The loss and the weights; of each leaf that is cut, its part of the norms."""
    count = math.prod(sizes[axis] for axis in ROWS)
    yield Message("all-reduce", "numbers", ROWS, count, 2 * FLOAT)
    for leaf in used:
        for axis in sizes:
            cut = leaf.in_parts and sizes[axis] > 1 if axis == "data" else is_cut(leaf, sizes, axis)
            if leaf.is_trained and cut:
                yield Message("all-reduce", "numbers", (axis,), sizes[axis], NORMS * FLOAT)


def _added(messages: Iterator[Message]) -> tuple[Message, ...]:
    """One message for each kind, purpose and set of axes."""
    found: dict[tuple[str, str, tuple[str, ...]], Message] = {}
    for message in messages:
        key = (message.kind, message.what, message.axes)
        known = found.get(key)
        size = message.num_bytes + (known.num_bytes if known else 0)
        found[key] = dataclasses.replace(message, num_bytes=size)
    return tuple(found.values())
