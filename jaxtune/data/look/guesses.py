"""What is taken for what, and what may be meant otherwise."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Doubt(NamedTuple):
    """What may be meant otherwise.

    Attributes:
      told: what was chosen, and why another choice may be right.
      lines: settings -> values of the other choice.
    """

    told: str
    lines: Mapping[str, Any] = {}


class Guess(NamedTuple):
    """What is read and what is learnt.

    Attributes:
      task: as `config.task` has it.
      texts: the columns that are read: one or two; one of images.
      labels: the columns that are learnt: none, one, or one for each class or target.
      separator: between classes in a field; empty where there is none.
      doubts: what may be meant otherwise.
    """

    task: str
    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    separator: str = ""
    doubts: tuple[Doubt, ...] = ()


class Hints(NamedTuple):
    """What a person said; None and () where nothing."""

    task: str | None = None
    texts: tuple[str, ...] = ()
    label: str | None = None
