"""The combinations that the default tests run, out of the product of all.

A cover of pairs: each value of a choice occurs with each value of every other choice at least once,
where the two can be together at all. What is wrong with one value, or with two of them together,
is found. A law that holds for each value by itself takes a cover of values. The full products are
marked `exhaustive`.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxtune.models.registry import FAMILIES
from jaxtune.tasks.registry import TASKS
from jaxtune.tuning.registry import STRATEGIES


class Case(NamedTuple):
    """One combination."""

    task: str
    family: str
    strategy: str
    layout: str = "padded"
    precision: str = "float32"
    placement: str = "one"


CHOICES = Case(
    tuple(TASKS),
    tuple(FAMILIES),
    tuple(STRATEGIES),
    ("padded", "packed", "bucketed"),
    ("float32", "bfloat16", "frozen bfloat16"),
    ("one", "mesh", "pmap"),
)
"""The values of each choice."""

REFUSED = {  # (family or task, strategy): a part of the reason
    ("resnet", "lora"): "acts on matrices",
    ("resnet", "ia3"): "acts on matrices",
    ("resnet", "adapter"): "acts on matrices",
    ("resnet", "prefix"): "acts on matrices",
    ("convnext", "lora"): "acts on matrices",
    ("convnext", "ia3"): "acts on matrices",
    ("convnext", "adapter"): "acts on matrices",
    ("convnext", "prefix"): "acts on matrices",
    ("causal_lm", "head"): "word embeddings",
    ("embedding", "head"): "states of its last layer",
    ("few_shot", "head"): "nothing but classifier",
    ("few_shot", "gradual"): "nothing but classifier",
    ("albert", "gradual"): "the model has 1 layers",
}
COMBINATIONS = [
    (task, family)
    for task in TASKS
    for family in FAMILIES
    if TASKS[task].head in FAMILIES[family].heads
]


def valid(case: Case) -> bool:
    """Whether the values of a case can be together."""
    refused = {(case.task, case.strategy), (case.family, case.strategy)} & REFUSED.keys()
    thawed_later = case.strategy == "gradual" and case.precision == "frozen bfloat16"
    bare = case.task in ("embedding", "few_shot") and case.family == "modernbert"
    no_bias = bare and case.strategy in ("bitfit", "rules")  # those of the tests
    impossible = refused or thawed_later or no_bias
    return (case.task, case.family) in COMBINATIONS and not impossible


def groups(case: Sequence[str], size: int = 2) -> Iterator[tuple[tuple[int, str], ...]]:
    """Every two values of a case, or so many, each with the number of its choice.

    Args:
      case: its values.
      size: of each group.
    """
    yield from itertools.combinations(enumerate(case), size)


def cover(
    cases: Sequence[tuple[str, ...]],
    size: int = 1,
    costs: Mapping[str, float] = MappingProxyType({}),
    known: Collection[tuple[str, ...]] = (),
) -> list[tuple[str, ...]]:
    """Some of the cases, with every value, or every two values that are together in one of them.

    Greedy: the case next that has the most that is new for what it costs.

    Args:
      cases: all that are possible.
      size: of the groups of values that are to occur: 1, or 2 for pairs.
      costs: how much longer a value makes a case; 1 where nothing is said.
      known: some of the cases that occur anyhow.
    """
    number: dict[object, int] = {}
    parts = [list(groups(case, size)) for case in cases]
    has = np.array([[number.setdefault(group, len(number)) for group in part] for part in parts])
    cost = np.array([math.prod(costs.get(value, 1) for value in case) for case in cases])
    found, missing = [], np.ones(len(number))
    for case in known:
        missing[[number[group] for group in groups(case, size)]] = 0
    while missing.any():
        best = int(np.argmax(missing[has].sum(1) / cost))
        found.append(cases[best])
        missing[has[best]] = 0
    return found


def mark_rest(cases: Collection[Any], kept: Collection[Any]) -> list[Any]:
    """All cases as parameters of a test, `exhaustive` but for those that are kept.

    Args:
      cases: tuples of values, or single ones.
      kept: those of the default tests.
    """
    assert set(kept) <= set(cases)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in kept else pytest.mark.exhaustive,
        )
        for case in cases
    ]


COSTS = {"mesh": 3, "pmap": 3, "packed": 1.4, "bucketed": 1.4}
"""How much longer a case takes."""

CASES = [case for case in itertools.starmap(Case, itertools.product(*CHOICES)) if valid(case)]
COVER = [Case(*case) for case in cover(CASES, 2, COSTS)]

BY_LAYER = ("last_layers", "first_layers_frozen", "gradual")
"""Strategies that one layer would not show."""

KIND = dict.fromkeys(
    (
        *("head", "last_layers", "first_layers_frozen", "embeddings_frozen"),
        *("bitfit", "layernorm", "rules"),
    ),
    "selective",
)
"""Strategies that differ in nothing but the labels of the leaves."""

LIKE = dict.fromkeys(("roberta", "xlm-roberta", "electra"), "bert")
LIKE |= {"dinov2_with_registers": "dinov2"}
"""Families with the layers of another."""


def by_kind(cases: Sequence[Case]) -> dict[Case, Case]:
    """One for each combination of kinds: heads stand for tasks, layers for families."""
    return {
        case._replace(
            task=TASKS[case.task].head,
            family=LIKE.get(case.family, case.family),
            strategy=KIND.get(case.strategy, case.strategy),
        ): case
        for case in cases
    }


def pairs_of_kinds(cases: Sequence[Case], known: Sequence[Case] = ()) -> list[Case]:
    """Fewer of the cases: every two kinds that are together in one of them occur together.

    Args:
      cases: all that are possible.
      known: cases that occur anyhow.
    """
    kinds = by_kind(cases)
    return [kinds[Case(*case)] for case in cover(list(kinds), 2, COSTS, list(by_kind(known)))]


def values_with_kinds(cases: Sequence[Case]) -> list[Case]:
    """Fewer still: each kind of value occurs."""
    kinds = by_kind(cases)
    return [kinds[Case(*case)] for case in cover(list(kinds))]


def num_layers(case: Case) -> int:
    """Of the model of a case: as few as show what its strategy does."""
    return 2 if case.strategy in BY_LAYER else 1
