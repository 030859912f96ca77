"""Masked language modelling: some tokens are hidden and predicted from all others.

What is hidden changes with every epoch of training, and is the same in every evaluation. The
perplexity of a text is thus a pseudo-perplexity, and that under one fixed mask: e to the mean loss
over its hidden tokens. It compares models on the same texts, not texts with each other.

Source: Devlin et al. 2019, BERT, section 3.1 and appendix A.1; Liu et al. 2019, RoBERTa, section
4.1, on masks that change.
"""

from functools import partial

import numpy as np
from jaxtyping import Int32

from jaxtune.core.errors import UserError
from jaxtune.data.sources.rows import Rows
from jaxtune.data.text import blocks
from jaxtune.data.text.examples import Examples, Fields
from jaxtune.data.text.text_tables import Track
from jaxtune.data.text.tokenizer import FileTokenizer
from jaxtune.settings.data import DataSettings
from jaxtune.tasks import language_modeling

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the others stay as they are


def encode(
    rows: Rows, tokenizer: FileTokenizer, settings: DataSettings, track: Track = iter
) -> tuple[Examples, list[str]]:
    """Blocks of tokens, each labelled with itself; `mask_tokens` hides some of them.

    To learn from, the texts are joined with the tokenizer's separator between them, and cut into
    blocks; to predict on, each text is cut alone. Around each block stand the special tokens of a
    single text.

    Args:
      rows: texts; without `labels` to predict on.
      tokenizer: from `load_tokenizer`.
      settings: of the tokens `max_length`, those of a block, special ones included, and
        `mask_probability` are read.
      track: shows progress.

    Raises:
      UserError: no mask token, no separator, blocks that special tokens fill, or no word to mask.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            f"{tokenizer.place}: the tokenizer has no mask token, but masked_lm hides words"
            " behind one. Choose a model that was trained with masks, or config.task='causal_lm'."
        )
    texts = blocks.tokenize_texts(tokenizer, rows.inputs, track)
    frame = blocks.find_frame(tokenizer, rows.inputs, texts)
    size, learning = blocks.room(frame, settings.tokens.max_length), rows.labels is not None
    streams = [blocks.join(texts, blocks.separator(tokenizer))] if learning else texts
    parts = [blocks.cut(ids, size) for ids in streams]
    found = blocks.make_examples(parts, tokenizer.pad_token_id, frame)
    special = {*tokenizer.all_special_ids}
    ids = found.tokens.input_ids
    candidates = np.isin(ids, list(special), invert=True)
    if learning and not candidates.any():
        raise UserError(
            f"{settings.source.path}: the texts have no token that can be masked, only special and"
            " unknown ones. Check config.data.text_columns and whether the tokenizer knows the"
            " language."
        )
    transform = partial(
        mask_tokens,
        mask_token=tokenizer.mask_token_id,
        words=np.array(sorted({*tokenizer.get_vocab().values()} - special), np.int32),
        probability=settings.tokens.mask_probability,
    )
    notes = [blocks.describe(len(texts), found, settings.tokens.max_length)] if learning else []
    weights = candidates.astype(np.float32)
    return found._replace(labels=ids, weights=weights, transform=transform), notes


def mask_tokens(
    fields: Fields,
    rng: np.random.Generator,
    train: bool,
    *,
    mask_token: int,
    words: Int32[np.ndarray, " w"],
    probability: float,
) -> Fields:
    """Hides some tokens of a block, at least one; only these keep their weight.

    Of the chosen tokens 80% become the mask, 10% a random word, and 10% stay.

    Args:
      fields: with `weights` above 0 at the tokens that may be chosen.
      rng: what is chosen follows from it alone.
      train: not read: the source of randomness is another in evaluation.
      mask_token: stands for a hidden token.
      words: the tokens that a random word is drawn from.
      probability: of a token to be chosen.
    """
    del train
    ids, candidates = fields["input_ids"], fields["weights"] > 0
    chosen = candidates & (rng.random(len(ids)) < probability)
    if not chosen.any() and candidates.any():
        chosen[rng.choice(np.flatnonzero(candidates))] = True
    fate = rng.random(len(ids))
    masked = chosen & (fate < MASKED_SHARE)
    replaced = chosen & ~masked & (fate < MASKED_SHARE + RANDOM_SHARE)
    hidden = np.where(replaced, rng.choice(words, len(ids)), ids)
    hidden = np.where(masked, np.int32(mask_token), hidden)
    return fields | {"input_ids": hidden, "weights": chosen.astype(np.float32)}


MASKED_LM = language_modeling.make_task("masked_lm", encode)
