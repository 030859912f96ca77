"""Pairs of labelled texts: of one class, which belong together, and of two, which do not."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxtune.data.batching.groups import groups_of
from jaxtune.data.ragged import offsets_of, places_of
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples
from jaxtune.data.text.tokens import Tokens

_OF_EACH = 2  # pairs of one class in a group, and of two


class Pairs(NamedTuple):
    """m pairs of n texts, as many of one class as of two.

    Attributes:
      texts: both of each pair.
      same: whether they are of one class.
      possible: how many pairs of one class there are, and how many of two.
    """

    texts: Int[np.ndarray, "m 2"]
    same: Bool[np.ndarray, " m"]
    possible: tuple[int, int]


def draw_pairs(labels: Int[np.ndarray, " n"], most: int, seed: int) -> Pairs:
    """Draws pairs of texts by their classes.

    Of the kind of which there are more, each pair once; of the other one as many, each as often as
    any other but for one. Where these are more than `most`, a part of each kind. No text is paired
    with itself, unless it is the only one of its class: then that is the class's one pair.

    Args:
      labels: the class of each text, of at least two classes.
      most: pairs, both kinds together, at least 2.
      seed: of what is drawn; the same seed gives the same pairs.

    Source: Tunstall et al. 2022, Efficient Few-Shot Learning Without Prompts, section 3.1.
    """
    order = np.argsort(labels, kind="stable")  # texts class after class
    _, sizes = np.unique(labels, return_counts=True)
    ends = np.repeat(np.cumsum(sizes), sizes)  # of the class of each place in that order
    places = np.arange(len(labels))
    alone = np.repeat(sizes == 1, sizes)
    kinds = (
        (np.where(alone, places, places + 1), ends),  # with those after it in its class
        (ends, np.full_like(ends, len(labels))),  # with those of all classes after its own
    )
    possible = [int((stop - start).sum()) for start, stop in kinds]
    count = min(max(possible), most // 2)
    rng = np.random.default_rng([seed, len(labels)])
    found = [_draw(start, stop, count, rng) for start, stop in kinds]
    texts = order[np.concatenate(found)]
    return Pairs(texts, np.repeat([True, False], count), (possible[0], possible[1]))


def _draw(
    start: Int[np.ndarray, " n"], stop: Int[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "m 2"]:
    """So many pairs, where place i may be paired with start[i] : stop[i]; not all are listed."""
    offsets = offsets_of(stop - start)
    total = int(offsets[-1])
    if count < total:
        chosen = rng.choice(total, count, replace=False)
    else:
        chosen = np.resize(rng.permutation(total), count)  # again from its beginning
    first = np.searchsorted(offsets, chosen, side="right") - 1
    return np.stack([first, start[first] + chosen - offsets[first]], axis=1)


def as_groups(examples: Examples, pairs: Pairs) -> GroupedExamples:
    """Groups of a text and those that it is paired with, so that it is computed once for these.

    Args:
      examples: the n texts.
      pairs: of them.

    Returns:
      Groups of a text, up to two of its class and up to two of others; the label of each of these
      is 1 or 0, and that of the first means nothing.
    """
    kinds = [_by_anchor(pairs.texts[pairs.same == flag], len(examples.lengths)) for flag in (1, 0)]
    texts: list[int] = []
    labels: list[float] = []
    sizes: list[int] = []
    for anchor, (same, other) in enumerate(zip(*kinds, strict=True)):
        for start in range(0, max(len(same), len(other)), _OF_EACH):
            own, foreign = (found[start : start + _OF_EACH] for found in (same, other))
            texts += [anchor, *own, *foreign]
            labels += [1.0, *[1.0] * len(own), *[0.0] * len(foreign)]
            sizes.append(1 + len(own) + len(foreign))
    taken, values = _take(examples.tokens, np.array(texts, np.int64)), np.array(labels, np.float32)
    groups = groups_of(np.array(sizes, np.int64))
    return GroupedExamples(examples._replace(tokens=taken, labels=values), groups)


def _by_anchor(texts: Int[np.ndarray, "m 2"], count: int) -> list[list[int]]:
    """The other texts of the pairs of each text, where a pair is with the end that has fewer."""
    found: list[list[int]] = [[] for _ in range(count)]
    for one, other in texts.tolist():
        anchor, partner = (one, other) if len(found[one]) <= len(found[other]) else (other, one)
        found[anchor].append(partner)
    return found


def alone(examples: Examples) -> GroupedExamples:
    """Each text as a group of its own, without a label."""
    groups = groups_of(np.ones(len(examples.lengths), np.int64))
    return GroupedExamples(examples._replace(labels=None), groups)


def _take(tokens: Tokens, indices: Int[np.ndarray, " m"]) -> Tokens:
    """The sequences at `indices`, in that order."""
    sizes = tokens.lengths[indices]
    places = places_of(tokens.offsets[:-1][indices], sizes)
    return Tokens(
        tokens.input_ids[places],
        tokens.token_type_ids[places],
        offsets_of(sizes),
        tokens.pad_token_id,
    )
