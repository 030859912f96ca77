"""Token classification: a tag for each word, such as those of named entities."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean, weights
from jaxtune.data.text import tags, words
from jaxtune.data.text.word_tokens import UNSCORED, Words, encode
from jaxtune.data.text.words import Tags
from jaxtune.settings import LossSettings
from jaxtune.tasks.class_weights import class_weights
from jaxtune.tasks.task import Records, Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.distillation import make_class_kl
from jaxtune.training.losses import cross_entropy, make_cross_entropy


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """Cross-entropy of the scored tokens, with the settings' options.

    Args:
      settings: of the loss.
      class_names: c tags in the order of the outputs.
      labels: of the training tokens, int32 [T]; `balanced` weights follow from those that are
        scored, the first of each word.
    """
    counts = np.bincount(labels[labels != UNSCORED], minlength=len(class_names))
    weights = class_weights(settings.class_weights, class_names, counts)
    loss_fn = make_cross_entropy(weights, settings.label_smoothing, settings.focal_gamma)
    return lambda outputs, batch: loss_fn(outputs, _with_indices(batch))


def batch_metrics(outputs: Float[Array, "b t c"], batch: Batch) -> dict[str, Mean]:
    """The loss of a batch over its scored tokens (nats), as sum and weight.

    Words with a tag that the model does not have are left out.
    """
    labels = batch["labels"]
    known = weights(batch, labels.shape) * (labels < outputs.shape[-1])
    batch = batch | {"labels": jnp.minimum(labels, outputs.shape[-1] - 1), "weight": known}
    return {"loss": cross_entropy(outputs, _with_indices(batch))}


def fetch(outputs: Float[Array, "b t c"], batch: Batch) -> Float[Array, "b t c"]:
    """All logits."""
    del batch
    return outputs.astype(jnp.float32)


def scores(means: Mapping[str, float], outputs: Any, examples: Any) -> dict[str, float]:
    """Precision, recall and F1 of entities, as conlleval counts them; and accuracy.

    Args:
      means: not read.
      outputs: n arrays of logits, float32 [t c].
      examples: with `info`, n `Words` with tags.

    Returns:
      `f1`, `precision` and `recall` over all entities (0 where there are none), which must agree in
      type, first and last word; `accuracy`, the share of words with the right tag. All words of the
      data count; one without a token is predicted `O`.
    """
    del means
    prefixed = tags.have_prefixes(examples.info[0].tags.names.values())
    both = right = predicted = same = words_in_all = 0
    for logits, example in zip(outputs, examples.info, strict=True):
        names = example.tags.names
        # The model may have classes that the data does not: each is a type of its own.
        guesses = [names.get(c, f"I-{c}") for c in range(logits.shape[1])]
        given = [names[c] for c in example.tags.classes.tolist()]
        guessed = _word_tags(logits, example, guesses)
        same += sum(a == b for a, b in zip(given, guessed, strict=True))
        words_in_all += len(given)
        there, found = (set(tags.entities(part, prefixed)) for part in (given, guessed))
        both, right, predicted = (
            both + len(there & found),
            right + len(there),
            predicted + len(found),
        )
    return {
        "f1": 2 * both / max(right + predicted, 1),
        "precision": both / max(predicted, 1),
        "recall": both / max(right, 1),
        "accuracy": same / words_in_all,
    }


def reorder(labels: Sequence[Tags], order: np.ndarray) -> list[Tags]:
    """Tags with indices in the model's order."""
    if not labels:
        return []
    # Tags that the model does not have stay behind those that it has.
    order = np.concatenate([order, np.arange(len(order), len(labels[0].names), dtype=order.dtype)])
    names = {int(order[c]): name for c, name in labels[0].names.items()}
    return [Tags(order[sentence.classes], names) for sentence in labels]


def decode(outputs: Any, examples: Any, class_names: Sequence[str]) -> Records:
    """The entities of each text.

    Args:
      outputs: n arrays of logits, float32 [t c].
      examples: with `info`, n `Words`.
      class_names: c tags in the order of the outputs.

    Returns:
      `entities`, each with its `label`, its `start` and `end` (exclusive) in characters of `text`,
      its `text`, and its `score`, the mean probability of the tags of its words; `tags`, one for
      each word; `words`, the start and end (exclusive) of each in characters of `text`; `text`. In
      a sentence of words these are joined by single spaces.
    """
    prefixed = tags.have_prefixes(class_names)
    records = []
    for logits, example in zip(outputs, examples.info, strict=True):
        found = _word_tags(logits, example, class_names)
        probabilities = _best_probabilities(logits)[example.tokens]
        text, spans = example.sentence
        entities = [
            {
                "label": label,
                "start": spans[first][0],
                "end": spans[last][1],
                "text": text[spans[first][0] : spans[last][1]],
                "score": float(probabilities[first : last + 1].mean()),
            }
            for label, first, last in tags.entities(found, prefixed)
        ]
        words = [list(span) for span in spans]
        records.append({"entities": entities, "tags": found, "words": words, "text": text})
    return records


def _with_indices(batch: Batch) -> Batch:
    """A batch whose labels are all classes: those that are not scored count 0 as they are."""
    return batch | {"labels": jnp.maximum(batch["labels"], 0)}


def _word_tags(logits: np.ndarray, example: Words, names: Sequence[str]) -> list[str]:
    """The likeliest tag of each word's first token; `O` where there is none."""
    classes: list[int] = np.argmax(logits, axis=-1).tolist()
    tokens: list[int] = example.tokens.tolist()
    return [names[classes[token]] if token >= 0 else tags.OUTSIDE for token in tokens]


def _best_probabilities(logits: np.ndarray) -> np.ndarray:
    """The probability of each token's likeliest class, [t c] -> float64 [t]."""
    gaps = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return 1.0 / np.exp(gaps).sum(axis=-1)


TOKEN_CLASSIFICATION = Task(
    name="token_classification",
    head="token",
    problem_type=None,
    data=TaskData(words.READER, encode, words.read_new, reorder=reorder),
    loss=TaskLoss(make_loss, batch_metrics, soft=make_class_kl),
    scores=TaskScores(
        scores,
        best="f1",
        higher_is_better={
            "f1": True,
            "precision": True,
            "recall": True,
            "accuracy": True,
            "loss": False,
        },
    ),
    output=TaskOutput(decode, fetch=fetch, per_token=True),
)
