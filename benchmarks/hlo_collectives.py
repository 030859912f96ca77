"""What a compiled program communicates, read from its HLO text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128}
_LINE = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.-]+ = (?P<type>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})"
    r"(?P<start>-start)?\(.*"
)
_ARRAY = re.compile(r"([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")


class Collective(NamedTuple):
    """One collective operation, as each device runs it.

    Attributes:
      kind: one of KINDS.
      group: devices that take part together.
      num_bytes: of what is whole: the result of an all-gather, the operand of a reduce-scatter,
        either of the others.
      elements: numbers in it.
      shapes: of the arrays in its type.
      text: its line.
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
    count = re.search(r"num_partitions=(\d+)", hlo)
    devices = int(count[1]) if count else 1
    found = (_read(line, devices) for line in hlo.splitlines() if any(k in line for k in KINDS))
    return [one for one in found if one is not None and one.group > 1]


def _read(line: str, devices: int) -> Collective | None:
    match = _LINE.match(line)
    if match is None:
        return None
    kind, group = match["kind"], _group(line, devices)
    arrays = _ARRAY.findall(match["type"])
    shapes = tuple(tuple(int(n) for n in sizes.split(",") if n) for _, sizes in arrays)
    elements = sum(map(math.prod, shapes))
    bits = sum(
        math.prod(shape) * _bits(dtype) for (dtype, _), shape in zip(arrays, shapes, strict=True)
    )
    num_bytes = bits // 8
    # A start has operands and results in its type, but that of an all-reduce.
    if match["start"] and kind in ("all-gather", "reduce-scatter"):
        elements, num_bytes = (x * group // (group + 1) for x in (elements, num_bytes))
    elif match["start"] and kind != "all-reduce":
        elements, num_bytes = elements // 2, num_bytes // 2
    elif kind == "reduce-scatter":
        elements, num_bytes = elements * group, num_bytes * group
    return Collective(kind, group, num_bytes, elements, shapes, line.strip())


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.match(r"[a-z]+(\d+)", dtype)
    return int(digits[1]) if digits else 8


def _group(line: str, devices: int) -> int:
    """Devices that take part together, in any of the forms in which XLA writes them."""
    if re.search(r"source_target_pairs=\{\{", line):
        return 2
    if mesh := re.search(r"replica_groups=mesh\[([^]]*)\] \{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(
            int(part) if part else sizes[name]
            for name, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        )
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return listed[1].count(",") + 1
    return devices
