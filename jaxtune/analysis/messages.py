"""What the devices of a compiled program send each other, read from its HLO text."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from jaxtune.analysis.hlo import Instruction, parse

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_START = "-start"


class Collective(NamedTuple):
    """One collective operation, as each device runs it.

    Attributes:
      kind: one of KINDS.
      group: devices that take part together.
      num_bytes: of what is whole: the result of an all-gather, the operand of a reduce-scatter,
        either of the others.
      elements: numbers in it.
      shapes: of the arrays in its type.
      text: what tells of it, with its name.
    """

    kind: str
    group: int
    num_bytes: int
    elements: int
    shapes: tuple[tuple[int, ...], ...]
    text: str

    @property
    def wire_bytes(self) -> float:
        """What each device sends in a ring."""
        return wire_bytes(self.kind, self.num_bytes, self.group)


def wire_bytes(kind: str, num_bytes: float, group: int) -> float:
    """Bytes that each of `group` devices in a ring sends.

    Args:
      kind: one of KINDS.
      num_bytes: of what is whole.
      group: devices that take part together.
    """
    if kind == "collective-permute":
        return num_bytes
    return (2 if kind == "all-reduce" else 1) * num_bytes * (group - 1) / group


def collectives(hlo: str) -> list[Collective]:
    """Every collective among two devices or more; one in the body of a loop counts once.

    Args:
      hlo: `as_text()` of a `jax.stages.Compiled`.
    """
    program = parse(hlo)
    every = (one for part in program.computations.values() for one in part.values())
    return read_collectives(every, program.devices)


def read_collectives(instructions: Iterable[Instruction], devices: int) -> list[Collective]:
    """Those among some instructions that two devices or more take part in.

    Args:
      instructions: in any order.
      devices: of the program.
    """
    found = (_read(one, devices) for one in instructions)
    return [one for one in found if one is not None and one.group > 1]


def _read(one: Instruction, devices: int) -> Collective | None:
    kind, starts = one.opcode.removesuffix(_START), one.opcode.endswith(_START)
    if kind not in KINDS:
        return None
    group = _group(one.text, devices)
    elements = sum(shape.elements for shape in one.results)
    num_bytes = sum(shape.bits for shape in one.results) // 8
    # A start has operands and results in its type, but that of an all-reduce.
    if starts and kind in ("all-gather", "reduce-scatter"):
        elements, num_bytes = (x * group // (group + 1) for x in (elements, num_bytes))
    elif starts and kind != "all-reduce":
        elements, num_bytes = elements // 2, num_bytes // 2
    elif kind == "reduce-scatter":
        elements, num_bytes = elements * group, num_bytes * group
    shapes = tuple(shape.sizes for shape in one.results)
    return Collective(kind, group, num_bytes, elements, shapes, f"{one.name}{one.text}")


def _group(text: str, devices: int) -> int:
    """Devices that take part together, in any of the forms in which XLA writes them."""
    if re.search(r"source_target_pairs=\{\{", text):
        return 2
    if mesh := re.search(r"replica_groups=mesh\[([^]]*)\] \{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(
            int(part) if part else sizes[name]
            for name, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        )
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return listed[1].count(",") + 1
    return devices
