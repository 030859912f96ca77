"""A tokenizer of the `tokenizers` library, and what its folder says of it beside that."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxtune.core.errors import UserError

SPECIAL = tuple(f"{name}_token" for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"))
"""The names of special tokens in `tokenizer_config.json`."""

_NO_LIMIT = 10**30  # what transformers writes where a tokenizer has no limit
# What a call left there, where files of the base were, or what stands in tokenizer.json.
_NOT_KEPT = {
    *("max_length", "stride", "truncation_strategy", "padding", "pad_to_multiple_of"),
    *("name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file"),
    *("is_local", "local_files_only", "added_tokens_decoder"),
}


class Cut(NamedTuple):
    """How what is too long is cut.

    Attributes:
      max_length: tokens that are left, special ones included.
      strategy: `longest_first`, or `only_second` of a pair.
      stride: tokens that a piece and the next one share.
    """

    max_length: int
    strategy: str = "longest_first"
    stride: int = 0


class FileTokenizer:
    """What a `tokenizer.json` says, to the letter; truncation, padding and BPE's dropout aside.

    BPE's dropout leaves merges out at random, whenever a text is encoded, so that a model would get
    other tokens at each prediction. It is for training alone.

    Source: Provilkov et al. 2020, BPE-Dropout, section 3: at inference there is none.

    Attributes:
      backend_tokenizer: the `tokenizers.Tokenizer`.
      special: special tokens by name, such as `mask_token`.
      place: the file, for messages.
      notes: what a person should know.
      model_max_length: tokens, as the folder says.
      pad_token_id: fills rows up; of the token that ends a text where there is none for padding.
    """

    def __init__(
        self,
        backend: Any,
        config: Mapping[str, Any],
        place: str = "the tokenizer",
        notes: tuple[str, ...] = (),
    ) -> None:
        """Takes the backend as its own: its truncation, padding and dropout are gone.

        Args:
          backend: a `tokenizers.Tokenizer`.
          config: of a checked `tokenizer_config.json`, special tokens as texts.
          place: the file, for messages.
          notes: what a person should know.

        Raises:
          UserError: no token for padding, and none that ends a text.
        """
        backend.no_truncation()
        backend.no_padding()
        if getattr(backend.model, "dropout", None):
            notes = (*notes, f"{place}: BPE's dropout of {backend.model.dropout:g} is left out")
            backend.model.dropout = None
        backend.encode_special_tokens = bool(config.get("split_special_tokens"))
        special = {name: config[name] for name in SPECIAL if config.get(name) is not None}
        if not special.keys() & {"pad_token", "eos_token"}:
            raise UserError(
                f"{place}: the tokenizer has no padding token. Set pad_token in"
                " tokenizer_config.json."
            )
        # GPT-2 has none; which token fills a row makes no difference.
        special.setdefault("pad_token", special.get("eos_token"))
        self.backend_tokenizer, self.special = backend, special
        self.place, self.notes, self._config = place, notes, dict(config)
        self.model_max_length = int(config.get("model_max_length") or _NO_LIMIT)
        self.pad_token_id: int = backend.token_to_id(special["pad_token"])
        self.unk_token_id = self._id("unk_token")
        self.mask_token_id = self._id("mask_token")
        self.sep_token_id = self._id("sep_token")
        self.eos_token_id = self._id("eos_token")
        added = backend.get_added_tokens_decoder().items()
        named = {backend.token_to_id(token) for token in special.values()}
        self.all_special_ids = sorted(named | {i for i, token in added if token.special})

    def encode(
        self,
        texts: Sequence[Any],
        *,
        special: bool = True,
        words: bool = False,
        cut: Cut | None = None,
    ) -> list[Any]:
        """One `tokenizers.Encoding` for each text or pair; further pieces are its `overflowing`.

        Args:
          texts: n of them; or n pairs; or n lists of words, with `words`.
          special: whether special tokens are put around them.
          words: whether each text is a list of words already.
          cut: of what is too long; None leaves all at its length.

        Raises:
          UserError: the tokenizer cannot do it, such as one without a token for unknown words.
        """
        side = self.truncation_side
        with told_of(self.place):
            if cut is not None:
                length, strategy, stride = cut
                self.backend_tokenizer.enable_truncation(
                    length, stride=stride, strategy=strategy, direction=side
                )
            try:
                return self.backend_tokenizer.encode_batch(
                    list(texts), is_pretokenized=words, add_special_tokens=special
                )
            finally:
                self.backend_tokenizer.no_truncation()

    def num_special_tokens(self, pair: bool = False) -> int:
        """How many tokens are put around a text or a pair."""
        return self.backend_tokenizer.num_special_tokens_to_add(pair)

    def get_vocab(self) -> dict[str, int]:
        """The id of each token, added ones included."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """The tokens as they stand in the vocabulary."""
        return [self.backend_tokenizer.id_to_token(int(i)) for i in ids]

    @property
    def truncation_side(self) -> str:
        """Where what is too long is cut, `right` or `left`."""
        return self._config.get("truncation_side") or "right"

    @cached_property
    def id_dtype(self) -> np.dtype:
        """The smaller of uint16 and int32 that holds the id of every token."""
        return np.dtype(np.uint16 if max(self.get_vocab().values()) < 2**16 else np.int32)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all that tokens follow from."""
        side = self._config.get("truncation_side"), self._config.get("split_special_tokens")
        content = json.dumps([self.backend_tokenizer.to_str(), sorted(self.special.items()), side])
        return hashlib.sha256(content.encode()).hexdigest()

    def save_pretrained(self, folder: Path) -> None:
        """Writes `tokenizer.json`, and a `tokenizer_config.json` by which transformers obeys it."""
        self.backend_tokenizer.save(str(folder / "tokenizer.json"))
        kept = {name: value for name, value in self._config.items() if name not in _NOT_KEPT}
        # By the name of a family's own class transformers would make the tokenizer anew, from its
        # vocabulary and defaults.
        fields = kept | self.special | {"tokenizer_class": "PreTrainedTokenizerFast"}
        text = json.dumps(dict(sorted(fields.items())), indent=2, ensure_ascii=False) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    def __len__(self) -> int:
        """How many tokens it has, added ones included."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def _id(self, name: str) -> int | None:
        token = self.special.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)


@contextlib.contextmanager
def told_of(place: str) -> Iterator[None]:
    """Turns what the `tokenizers` library raises, which is of no class of its own, to one message.

    Raises:
      UserError: with the first line of it.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{place}: {lines[0][:200]}") from None
