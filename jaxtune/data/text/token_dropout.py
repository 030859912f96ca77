"""Random changes to the tokens of training."""

from collections.abc import Sequence

import numpy as np

from jaxtune.data.text.examples import Fields, Transform


def token_dropout(rate: float, mask_token_id: int, special_ids: Sequence[int]) -> Transform:
    """Hides tokens at random, anew each time that an example goes into a batch of training.

    Args:
      rate: the chance of each token, 0 up to 1.
      mask_token_id: takes its place: of the mask token, or of the one for unknown words.
      special_ids: tokens that stay, as a tokenizer's `all_special_ids`.

    Returns:
      (fields, rng, train) -> fields; in evaluation they are as they were.

    Source: Xie et al. 2017, Data Noising as Smoothing in Neural Network Language Models, section
    3.3 (blank noising).
    """
    special = np.asarray(special_ids, np.int64)

    def transform(fields: Fields, rng: np.random.Generator, train: bool) -> Fields:
        if not train:
            return fields
        tokens = fields["input_ids"]
        hidden = (rng.random(len(tokens)) < rate) & ~np.isin(tokens, special)
        replaced = np.where(hidden, mask_token_id, tokens).astype(tokens.dtype)
        return fields | {"input_ids": replaced}

    return transform
