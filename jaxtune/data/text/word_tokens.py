"""Words to tokens: the first token of each word stands for it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.tokenizer import Cut, FileTokenizer
from jaxtune.data.text.words import Sentence, Tags
from jaxtune.settings.data import DataSettings

UNSCORED = -1
"""The label of a token that is not the first of a word. Its weight is 0."""

_CHUNK = 2000  # sentences tokenized at a time, so that progress can be shown


class Words(NamedTuple):
    """What decoding and scoring need to know of an example.

    Attributes:
      sentence: text and words.
      tokens: position of each word's first token; -1 where it has none.
      tags: the right ones; None where unlabelled.
    """

    sentence: Sentence
    tokens: Int[np.ndarray, " w"]
    tags: Tags | None


class _Tokens(NamedTuple):
    """One sentence: t tokens, and how many of its words the tokenizer dropped, and the cut."""

    input_ids: Sequence[int]
    token_type_ids: Sequence[int]
    first: np.ndarray
    dropped: int
    cut: int


def encode(
    rows: Rows, tokenizer: FileTokenizer, settings: DataSettings, track: Track = iter
) -> tuple[Examples, list[str]]:
    """Tokenizes sentences word by word, and says how many words have no token.

    Those are words that the tokenizer drops, such as a zero-width space, and words beyond
    `max_length`. They are predicted `O`, so that scores are over all words.

    Args:
      rows: of `words.READER`, or without labels.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` is read.
      track: shows progress.

    Returns:
      (examples, notes). Of a word's tokens the first has its tag as label and weight 1, the others
      and special tokens have UNSCORED and 0; without labels there are no weights. `info` has
      `Words`.

    """
    found: list[_Tokens] = []
    length = settings.tokens.max_length
    for start in track(range(0, len(rows.inputs), _CHUNK)):
        chunk = rows.inputs[start : start + _CHUNK]
        found += _tokenize(tokenizer, chunk, length)
    golds = [None] * len(found) if rows.labels is None else rows.labels
    info = [
        Words(sentence, tokens.first, gold)
        for sentence, tokens, gold in zip(rows.inputs, found, golds, strict=True)
    ]
    ids, types = ([t.input_ids for t in found], [t.token_type_ids for t in found])
    examples = Examples(tokens.join(ids, types, tokenizer.pad_token_id), info=info)
    if rows.labels is not None:
        examples = _with_labels(examples)
    return examples, _notes(found, length)


def _tokenize(
    tokenizer: FileTokenizer, sentences: Sequence[Sentence], max_length: int
) -> list[_Tokens]:
    # Byte-level tokenizers know that a word begins by the space before it; others drop the space.
    words = [[f" {word}" for word in sentence.words] for sentence in sentences]
    found = []
    for encoded, sentence in zip(tokenizer.encode(words, words=True), words, strict=True):
        first = _first_tokens(encoded.word_ids, len(sentence))
        dropped, cut = int((first < 0).sum()), 0
        if len(encoded) > max_length:
            (encoded,) = tokenizer.encode([sentence], words=True, cut=Cut(max_length))
            first = _first_tokens(encoded.word_ids, len(sentence))
            cut = int((first < 0).sum()) - dropped
        found.append(_Tokens(encoded.ids, encoded.type_ids, first, dropped, cut))
    return found


def _first_tokens(word_ids: Sequence[int | None], count: int) -> Int[np.ndarray, " w"]:
    first = np.full(count, -1)
    for position, word in reversed(list(enumerate(word_ids))):
        if word is not None:
            first[word] = position
    return first


def _with_labels(examples: Examples) -> Examples:
    labels = np.full(len(examples.tokens.input_ids), UNSCORED, np.int32)
    for start, words in zip(examples.tokens.offsets, examples.info, strict=False):
        has_token = words.tokens >= 0
        labels[start + words.tokens[has_token]] = words.tags.classes[has_token]
    return examples._replace(labels=labels, weights=(labels != UNSCORED).astype(np.float32))


def _notes(found: Sequence[_Tokens], max_length: int) -> list[str]:
    total = sum(len(tokens.first) for tokens in found)
    counts = {
        f"are beyond max_length {max_length}": sum(tokens.cut for tokens in found),
        "are dropped by the tokenizer": sum(tokens.dropped for tokens in found),
    }
    return [
        f"{count} of {total} words {reason} and predicted as O"
        for reason, count in counts.items()
        if count
    ]
