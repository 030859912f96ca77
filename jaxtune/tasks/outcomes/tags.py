"""Sentences with a tag for each word."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtune.data.ragged import offsets_of
from jaxtune.data.text import tags
from jaxtune.data.text.tags import OUTSIDE
from jaxtune.tasks.outcomes.outcome import Outcome, Told


def of_tags(outputs: Sequence[np.ndarray], examples: Any) -> Outcome:
    """Of token classification.

    Args:
      outputs: n arrays of logits, float32 [t c].
      examples: with `info`, n `Words` with tags.

    Returns:
      With `right` and `predicted` of all words, sentence after sentence, indices into `names`;
      `probabilities` of the predicted tags, 1 of a word without a token, which is `O`; and
      `offsets` [n+1], where each sentence begins. A sentence is as bad as its wrong words are
      sure, all added.
    """
    info = examples.info
    known: dict[int, str] = dict(info[0].tags.names)
    most = max([*known, *(part.shape[1] - 1 for part in outputs[:1])])
    names = [known.get(c, f"I-{c}") for c in range(most + 1)]
    outside = names.index(OUTSIDE) if OUTSIDE in names else 0
    found = [_words(part, row.tokens, outside) for part, row in zip(outputs, info, strict=True)]
    predicted = np.concatenate([part for part, _ in found])
    sure = np.concatenate([part for _, part in found])
    right = np.concatenate([row.tags.classes for row in info]).astype(np.int32)
    offsets = offsets_of(np.array([len(row.tokens) for row in info]))
    owners = np.repeat(np.arange(len(info)), np.diff(offsets))
    badness = np.bincount(owners, np.where(predicted == right, 0.0, sure), len(info))

    def tell(i: int) -> Told:
        words = slice(int(offsets[i]), int(offsets[i + 1]))
        sentence = info[i].sentence
        pairs = zip(sentence.words, right[words].tolist(), predicted[words].tolist(), strict=True)
        wrong = [[word, names[a], names[b]] for word, a, b in pairs if a != b]
        return {"texts": [["text", sentence.text]], "wrong": wrong}

    arrays = {"right": right, "predicted": predicted, "probabilities": sure, "offsets": offsets}
    return Outcome(arrays, examples.lengths, badness, tell, names=tuple(names))


def _words(logits: np.ndarray, tokens: np.ndarray, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """The tag of each word and its probability."""
    has = tokens >= 0
    part = logits[np.where(has, tokens, 0)].astype(np.float64)
    best = part.argmax(axis=1)
    sure = 1.0 / np.exp(part - part.max(axis=1, keepdims=True)).sum(axis=1)
    return np.where(has, best, outside).astype(np.int32), np.where(has, sure, 1.0).astype("f4")


def entities_of(
    arrays: Mapping[str, Any], names: Sequence[str], side: str
) -> list[list[tags.Entity]]:
    """The entities of each sentence.

    Args:
      arrays: as `of_tags` has them.
      names: of the tags.
      side: `right` or `predicted`.
    """
    prefixed = tags.have_prefixes(names)
    offsets, found = arrays["offsets"].tolist(), arrays[side].tolist()
    return [
        tags.entities([str(names[c]) for c in found[start:stop]], prefixed)
        for start, stop in itertools.pairwise(offsets)
    ]
