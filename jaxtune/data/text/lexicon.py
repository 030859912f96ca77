"""What a tokenizer makes of the pieces between spaces, each asked for once.

A tokenizer that splits at spaces, and changes no character for one beyond a space, gives a text the
tokens of its pieces, one after the other. Most pieces of a text have been seen before: to look them
up takes a tenth of the time that it takes to tokenize them again.
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from jaxtune.data.ragged import offsets_of, places_of, starts_of
from jaxtune.data.text.tokenizer import FileTokenizer, told_of

_MOST = 48 << 20  # bytes of all pieces, about; then they are forgotten
_PIECE = 130  # bytes of one beside its characters and tokens

_NORMALIZERS = ("BertNormalizer", "Lowercase", "NFC", "NFD", "StripAccents")
_PROCESSORS = ("TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel")
_WITH_SPACE = re.compile(" ?[^ ]+")

Split = Callable[[str], list[str]]


class Found(NamedTuple):
    """The tokens of n texts, without special ones around them.

    Attributes:
      ids: of all texts, one after the other.
      lengths: tokens of each text.
      odd: texts whose tokens are not those of their pieces; they have none here.
    """

    ids: Int32[np.ndarray, " T"]
    lengths: Int[np.ndarray, " n"]
    odd: Bool[np.ndarray, " n"]


class _Numbers(dict[str, int]):
    """Piece -> number from 0; a new one gets the next and is listed in `fresh`."""

    def __init__(self) -> None:
        self.fresh: list[str] = []

    def __missing__(self, piece: str) -> int:
        number = self[piece] = len(self)
        self.fresh.append(piece)
        return number


class Lexicon:
    """The pieces that were seen so far; from `open_lexicon`."""

    def __init__(self, tokenizer: FileTokenizer, *, spaces_count: bool) -> None:
        """Knows no piece yet.

        Args:
          tokenizer: splits at spaces.
          spaces_count: whether a space belongs to the piece after it.
        """
        self._tokenizer, self._spaces_count = tokenizer, spaces_count
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        self._added = re.compile("|".join(re.escape(token.content) for token in added) or r"(?!)")
        self._forget()

    def look_up(self, texts: Sequence[str]) -> Found:
        """The tokens of each text.

        Raises:
          UserError: the tokenizer cannot do it.
        """
        if self._bytes > _MOST:
            self._forget()
        split: Split = _WITH_SPACE.findall if self._spaces_count else _between_spaces
        pieces = [split(text) for text in texts]
        counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        every = map(self._numbers.__getitem__, itertools.chain.from_iterable(pieces))
        numbers = np.fromiter(every, np.int64, int(counts.sum()))
        self._learn()
        odd = np.zeros(len(texts), bool)
        if self._spaces_count:
            odd |= _any(self._odd[numbers], counts)
            odd |= np.array(["  " in text or text[-1:] == " " for text in texts], bool)
            kept = np.repeat(~odd, counts)
            numbers, counts = numbers[kept], np.where(odd, 0, counts)
        sizes = self._sizes[numbers]
        ids = self._ids[places_of(self._starts[numbers], sizes)]
        return Found(ids, np.diff(offsets_of(sizes)[offsets_of(counts)]), odd)

    def _learn(self) -> None:
        """Tokenizes the new pieces."""
        fresh = self._numbers.fresh
        if not fresh:
            return
        encoded = self._tokenizer.encode(fresh, special=False)
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = itertools.chain.from_iterable(part.ids for part in encoded)
        self._starts = np.concatenate([self._starts, len(self._ids) + starts_of(sizes)])
        self._sizes = np.concatenate([self._sizes, sizes])
        self._ids = np.concatenate([self._ids, np.fromiter(ids, np.int32, int(sizes.sum()))])
        if self._spaces_count:
            odd = np.fromiter(map(self._is_odd, fresh), bool, len(fresh))
            self._odd = np.concatenate([self._odd, odd])
        self._bytes += sum(map(len, fresh)) + _PIECE * len(fresh) + 4 * int(sizes.sum())
        fresh.clear()

    def _is_odd(self, piece: str) -> bool:
        """Whether what stands beside a piece may matter to it: it has other space, or a token."""
        plain = not any(map(str.isspace, piece[1:])) and (piece[0] == " " or not piece[0].isspace())
        return not plain or any(
            self._added.search(form) for form in (piece, unicodedata.normalize("NFC", piece))
        )

    def _forget(self) -> None:
        self._numbers, self._bytes = _Numbers(), 0
        self._ids = np.zeros(0, np.int32)
        self._starts, self._sizes = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._odd = np.zeros(0, bool)


def open_lexicon(tokenizer: FileTokenizer) -> Lexicon | None:
    """A lexicon of a tokenizer; None where it is not of a kind whose pieces stand for themselves.

    That is one that splits at white space and takes it away (BERT's), or one of bytes that gives a
    space to the word after it (GPT-2's, ModernBERT's), always in the same way.
    """
    backend = tokenizer.backend_tokenizer
    with told_of(tokenizer.place):
        normalizers = _parts(backend.normalizer, "normalizers")
        splitters = _parts(backend.pre_tokenizer, "pretokenizers")
        processors = _parts(backend.post_processor, "processors")
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    known = all(part["type"] in _PROCESSORS for part in processors)
    if not known or getattr(backend.model, "dropout", None) or len(splitters) != 1:
        return None
    kinds, (splitter,) = {part["type"] for part in normalizers}, splitters
    if splitter["type"] in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit"):
        fits = kinds <= {*_NORMALIZERS} and all(
            text.isascii() and text.split() == [text] for text in added
        )
        return Lexicon(tokenizer, spaces_count=False) if fits else None
    if splitter["type"] == "ByteLevel" and splitter.get("use_regex", True):
        # A token with two spaces in a row is in no text that is looked up.
        fits = kinds <= {"NFC"} and all(" " not in text or "  " in text for text in added)
        return Lexicon(tokenizer, spaces_count=True) if fits else None
    return None


def _parts(component: Any, name: str) -> list[dict[str, Any]]:
    """What a component of the `tokenizers` library says of itself, or of its parts."""
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    return state[name] if state["type"] == "Sequence" else [state]


def _between_spaces(text: str) -> list[str]:
    return text.split(" ")


def _any(flags: Bool[np.ndarray, " p"], counts: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether any flag is set, of parts with so many flags."""
    return np.diff(offsets_of(flags)[offsets_of(counts)]) > 0
