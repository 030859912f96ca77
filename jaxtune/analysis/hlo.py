"""A compiled program as XLA prints it: computations, and the instructions in them.

Only what is needed to count kernels, bytes, operations and messages is read; see `kernels` and
`messages`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,<=]*)\](?:\{([^{}]*)\})?")
_ON_CHIP = re.compile(r"T\(.*S\([1-9]")  # a TPU's tiles, in another memory than the large one
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .*)?\{$")
_NAME = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r" ?([a-z][\w-]*)\(")
_OPERAND = re.compile(r"%([\w.-]+)")


class Shape(NamedTuple):
    """An array.

    Attributes:
      dtype: as XLA spells it.
      sizes: of its dimensions.
      on_chip: whether a TPU keeps it in the memory beside its units.
    """

    dtype: str
    sizes: tuple[int, ...]
    on_chip: bool = False

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return math.prod(self.sizes)

    @property
    def bits(self) -> int:
        """Of all its numbers."""
        known = _BITS.get(self.dtype)
        if known is None:
            digits = re.match(r"[a-z]+(\d+)", self.dtype)
            known = int(digits[1]) if digits else 8
        return self.elements * known


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: without the percent sign.
      opcode: what is done.
      results: the arrays in its type.
      operands: names of instructions of the same computation.
      text: what stands behind the operands: dimensions, called computations, backend's choices.
    """

    name: str
    opcode: str
    results: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str

    def called(self, what: str = "calls") -> str | None:
        """The name of the computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{what}=%?([\w.-]+)", self.text)
        return None if found is None else found[1]

    def numbers(self, what: str) -> tuple[int, ...]:
        """Those of an attribute such as `lhs_contracting_dims={1,2}`."""
        found = re.search(rf"\b{what}=\{{([\d,]*)\}}", self.text)
        return () if found is None else tuple(int(n) for n in found[1].split(",") if n)


Computation = Mapping[str, Instruction]
"""Instructions by name, in their order."""


class Program(NamedTuple):
    """A module.

    Attributes:
      computations: by name.
      entry: the name of the one that is run.
      devices: that run it together.
    """

    computations: Mapping[str, Computation]
    entry: str
    devices: int


def parse(text: str) -> Program:
    """Reads the `as_text()` of a `jax.stages.Compiled`.

    Args:
      text: in the form with or without types at operands. What stands before the first computation
        and is none belongs to a computation without a name, which is the entry where none is
        marked.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None:
            current = head[2]
            entry = current if head[1] else entry
            computations[current] = {}
        elif (read := _instruction(line)) is not None:
            computations.setdefault(current, {})[read.name] = read
    count = re.search(r"num_partitions=(\d+)", text)
    return Program(computations, entry, int(count[1]) if count else 1)


def _instruction(line: str) -> Instruction | None:
    name = _NAME.match(line)
    if name is None:
        return None
    kind, rest = _split_type(line[name.end() :])
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    end = _closing(rest, opcode.end() - 1)
    operands = tuple(_OPERAND.findall(rest[opcode.end() : end]))
    return Instruction(name[1], opcode[1], _shapes(kind), operands, rest[end + 1 :])


def _split_type(text: str) -> tuple[str, str]:
    """The type that a text begins with, and the rest; a layout may have blanks and brackets."""
    if text.startswith("("):
        end = _closing(text, 0) + 1
    else:
        end = next((i for i, c in _outside(text) if c == " "), len(text))
    return text[:end], text[end:]


def _outside(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside of brackets, with their places."""
    depth = 0
    for i, c in enumerate(text):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif depth == 0:
            yield i, c


def _closing(text: str, start: int) -> int:
    """Where the bracket at `start` ends."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text)


def _shapes(kind: str) -> tuple[Shape, ...]:
    """The arrays in a type; `/*index=5*/` and layouts say nothing of them."""
    found = []
    for dtype, sizes, layout in _ARRAY.findall(re.sub(r"/\*.*?\*/", "", kind)):
        numbers = tuple(int(n.removeprefix("<=")) for n in sizes.split(",") if n)
        found.append(Shape(dtype, numbers, bool(_ON_CHIP.search(layout))))
    return tuple(found)
