"""What goes into a model and must fit it: a tokenizer's texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.data.text.tokenizer_files import load_tokenizer
from jaxtune.settings.data import AugmentationSettings, DataSettings


class Inputs(NamedTuple):
    """A kind of input; each function raises a UserError where something does not fit the model.

    Attributes:
      check_settings: (settings, the model's config, its folder), before anything is read.
      load: (folder, the model's config) -> tokenizer or image processor.
      check: (examples, the model's config, its folder), before anything is computed.
    """

    check_settings: Callable[[DataSettings, Any, Path], None]
    load: Callable[[Path, Any], Any]
    check: Callable[[Any, Any, Path], None]


def check_max_length(max_length: int, limit: int, folder: Path) -> None:
    """Refuses more tokens than the model has positions for."""
    if max_length > limit:
        raise UserError(
            f"config.data.max_length is {max_length}, but {folder} has {limit} positions: expected"
            f" at most {limit}."
        )


def check_tokens(examples: Examples, config: Any, folder: Path) -> None:
    """Refuses tokens and token types outside the model's tables, which XLA would not report."""
    ids, types, *_ = examples.tokens
    tables = {
        "input_ids": (ids, "vocab_size", config.vocab_size),
        "token_type_ids": (types, "type_vocab_size", config.type_vocab_size),
    }
    for name, (values, field, size) in tables.items():
        most = int(values.max(initial=0))
        if most >= size > 0:  # a model without token types reads none
            raise UserError(
                f"{folder}: the tokenizer gives {name} up to {most}, but config.json has {field}"
                f" {size}: expected at most {size - 1}. The tokenizer and the model do not belong"
                " together, or the model takes no pairs of texts."
            )


def _check_text_settings(settings: DataSettings, config: Any, folder: Path) -> None:
    if not hasattr(config, "max_length"):
        raise UserError(
            f"{folder} is a model of images, which reads no texts. Choose a model of texts, or"
            " config.task='image_classification'."
        )
    if settings.augmentation != AugmentationSettings():
        raise UserError(
            "config.data.augmentation is for images, but this task reads texts: leave it out, or"
            " use config.data.token_dropout."
        )
    check_max_length(settings.tokens.max_length, config.max_length, folder)


def _open_tokenizer(folder: Path, config: Any) -> FileTokenizer:
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the model has"
            f" {config.vocab_size} word embeddings. They do not belong together."
        )
    return tokenizer


TEXT = Inputs(_check_text_settings, _open_tokenizer, check_tokens)
"""Texts, by the tokenizer in the model's folder."""
