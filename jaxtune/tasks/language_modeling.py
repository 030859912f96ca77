"""What causal and masked language models share: loss, metrics, scores and decoding.

The logits over the vocabulary, [b t v], are computed for a chunk of the scored tokens at a time;
of each block two sums are fetched.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.errors import UserError
from jaxtune.core.types import (
    ApplyFn,
    Batch,
    LossFn,
    Mean,
    Params,
    PRNGKey,
    segment_mask,
    weighted_mean,
    weights,
)
from jaxtune.data.text import blocks
from jaxtune.models.vocabulary import Words, leaving_words
from jaxtune.settings import LossSettings
from jaxtune.tasks.task import (
    Encode,
    Records,
    Task,
    TaskData,
    TaskLoss,
    TaskOutput,
    TaskScores,
)
from jaxtune.training.word_losses import TokenScores, make_word_loss, token_scores


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Cross-entropy over the vocabulary, with the settings' options.

    Raises:
      UserError: weights of classes, of which there are none.
    """
    del class_names, labels
    if settings.class_weights:
        raise UserError(
            f"config.loss.class_weights is {settings.class_weights!r}, but a language model has no"
            " classes. Leave it empty."
        )
    return make_word_loss(settings.label_smoothing, settings.focal_gamma)


def scored(apply_fn: ApplyFn) -> ApplyFn:
    """The model without its logits: in training it gives `Words`, in evaluation `TokenScores`."""
    words = leaving_words(apply_fn)

    def run(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        outputs = words(params, batch, key=key, train=train)
        return outputs if train else token_scores(outputs, batch)

    return run


Outputs = Float[Array, "b t v"] | Words | TokenScores
"""Of a language model: logits, or what stands for them."""


def metrics(outputs: Outputs, batch: Batch) -> dict[str, Mean]:
    """Loss (nats) and accuracy (0 to 1) of scored tokens, as sums and weights."""
    losses, hits = token_scores(outputs, batch)
    weight = weights(batch, losses.shape)
    return {"loss": weighted_mean(losses, weight), "accuracy": weighted_mean(hits, weight)}


def fetch(outputs: Outputs, batch: Batch) -> Float[Array, "b 2"]:
    """Of each block, the log-likelihood of its scored tokens (nats) and how many they are.

    Of packed rows with s blocks, [b s 2].
    """
    losses, _ = token_scores(outputs, batch)
    weight = weights(batch, losses.shape)
    if "segment_ids" in batch:
        losses, weight = losses[:, None], weight[:, None] * segment_mask(batch)  # [b s t]
    return jnp.stack([-jnp.sum(losses * weight, axis=-1), jnp.sum(weight, axis=-1)], axis=-1)


def perplexity(loss: float) -> float:
    """`exp(loss)`; infinite where that is beyond float64, NaN where the loss is.

    Args:
      loss: mean over tokens, in nats.
    """
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def scores(means: Mapping[str, float], outputs: Any, examples: Any) -> dict[str, float]:
    """`perplexity`, e to the mean loss over all scored tokens, and `accuracy` of these tokens."""
    del outputs, examples
    return {"perplexity": perplexity(means["loss"]), "accuracy": means["accuracy"]}


def decode(outputs: np.ndarray, examples: Any, class_names: Sequence[str]) -> Records:
    """The perplexity of each text over all its blocks, and the number of its scored tokens.

    Args:
      outputs: from `fetch`, float32 [n 2], of n blocks.
      examples: with the index of the text of each block as `info`.
      class_names: not read.

    Returns:
      `perplexity`, None where no token is scored or it is not finite, and `tokens`.
    """
    del class_names
    sums = np.zeros((max(examples.info) + 1, 2))
    np.add.at(sums, np.asarray(examples.info), outputs.astype(np.float64))
    records = []
    for log_likelihood, count in sums.tolist():
        value = perplexity(-log_likelihood / count) if count else math.nan
        known = math.isfinite(value)
        records.append({"perplexity": value if known else None, "tokens": round(count)})
    return records


def make_task(name: str, encode: Encode) -> Task:
    """The task of a language model, whose head has the same name.

    Args:
      name: as `config.task` spells it.
      encode: texts -> blocks with labels and weights.
    """
    return Task(
        name=name,
        head=name,
        problem_type=None,
        data=TaskData(blocks.TEXTS, encode, blocks.read_new),
        loss=TaskLoss(make_loss, metrics, scored),
        scores=TaskScores(
            scores,
            best="perplexity",
            higher_is_better={"perplexity": False, "accuracy": True, "loss": False},
        ),
        output=TaskOutput(decode, fetch=fetch),
    )
