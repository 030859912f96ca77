"""Causal language modelling: each token is predicted from those before it.

Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.
"""

import numpy as np

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import blocks
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.settings.data import DataSettings
from jaxtune.tasks import language_modeling


def encode(
    rows: Rows, tokenizer: FileTokenizer, settings: DataSettings, track: Track = iter
) -> tuple[Examples, list[str]]:
    """Blocks of tokens, each labelled with the one after it.

    To learn from, the texts are joined with the tokenizer's separator between them, and cut into
    blocks; the last token of a block has weight 0, as its successor is not in the block. To
    predict on, each text is cut alone, after a separator, as texts stand in training; its blocks
    overlap by one token, so that every token of the text is scored once.

    Args:
      rows: texts; without `labels` to predict on.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length` is read, those of a block.
      track: shows progress.

    Raises:
      UserError: no separator, or texts to learn from with fewer than two tokens in all.
    """
    texts = blocks.tokenize_texts(tokenizer, rows.inputs, track)
    end, size = blocks.separator(tokenizer), settings.tokens.max_length
    if rows.labels is None:
        first = np.array([end], np.int32)
        streams = [np.concatenate([first, ids]) for ids in texts]
        parts = [blocks.cut(ids, size, overlap=1) for ids in streams]
        return next_tokens(blocks.make_examples(parts, tokenizer.pad_token_id)), []
    joined = blocks.join(texts, end)
    if len(joined) < 2:
        raise UserError(
            f"{settings.source.path}: the texts have {len(joined)} tokens in all, but expected at"
            " least 2, one to predict from and one to predict. Check config.data.text_columns."
        )
    # A block of one token would have nothing to predict it from.
    parts = [blocks.cut(joined, size, least=2)]
    found = blocks.make_examples(parts, tokenizer.pad_token_id)
    return next_tokens(found), [blocks.describe(len(texts), found, size)]


def next_tokens(examples: Examples) -> Examples:
    """Labels each token with the next one of its block; the last one has weight 0."""
    ids = examples.tokens.input_ids
    weights = np.ones(len(ids), np.float32)
    weights[examples.tokens.offsets[1:] - 1] = 0.0
    following = np.append(ids[1:], np.int32(0))
    return examples._replace(labels=np.where(weights > 0, following, 0), weights=weights)


CAUSAL_LM = language_modeling.make_task("causal_lm", encode)
