"""Extractive question answering: the answer is a piece of a context, or there is none."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from jaxtune.core.types import Batch, LossFn, Mean
from jaxtune.data.sources.rows import Data
from jaxtune.data.text import squad, windows
from jaxtune.settings import LossSettings
from jaxtune.tasks import spans
from jaxtune.tasks.task import Records, Task, TaskData, TaskLoss, TaskOutput, TaskScores
from jaxtune.training.distillation import make_span_kl
from jaxtune.training.losses import span_cross_entropy


def make_loss(settings: LossSettings, class_names: Sequence[str], labels: Any) -> LossFn:
    """The cross-entropy of starts and ends, which has no options."""
    del settings, class_names, labels
    return span_cross_entropy


def batch_metrics(outputs: Float[Array, "b t 2"], batch: Batch) -> dict[str, Mean]:
    """The loss of a batch (nats, over windows), as sum and weight."""
    return {"loss": span_cross_entropy(outputs, batch)}


def scores(
    means: Mapping[str, float], outputs: Sequence[np.ndarray], examples: Any
) -> dict[str, float]:
    """Exact match and F1 of SQuAD: means over questions of the best over the right answers.

    Args:
      means: not read.
      outputs: of each window, logits of start and end, [t 2].
      examples: with a `Window` of each as `info`.

    Returns:
      `exact_match` and `f1`, 0 to 1; `has_answer_f1` and `no_answer_f1` where questions of both
      kinds occur.

    Source: the evaluation script of SQuAD 2.0.
    """
    del means
    right = {window.row: window.answers for window in examples.info}
    found = spans.answers(outputs, examples.info)
    pairs = [
        ([answer.text for answer in answers], record["answer"])
        for answers, record in zip(right.values(), found, strict=True)
    ]
    f1 = np.array([best_f1(*pair) for pair in pairs])
    answerable = np.array([bool(answers) for answers, _ in pairs])
    means_of = {"exact_match": np.array([best_exact_match(*p) for p in pairs]), "f1": f1}
    if answerable.any() and not answerable.all():
        means_of |= {"has_answer_f1": f1[answerable], "no_answer_f1": f1[~answerable]}
    return {name: float(values.mean()) for name, values in means_of.items()}


def normalize_answer(answer: str) -> str:
    """Small letters, without punctuation of ASCII, articles and more than single spaces."""
    plain = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def best_exact_match(answers: Sequence[str], predicted: str) -> float:
    """1 where a prediction is one of the right answers, normalized, else 0.

    Args:
      answers: empty where only the empty prediction is right.
      predicted: the prediction.
    """
    return float(normalize_answer(predicted) in _normalized(answers))


def best_f1(answers: Sequence[str], predicted: str) -> float:
    """The best F1 of a prediction's words against those of a right answer, 0 to 1.

    Args:
      answers: empty where only the empty prediction is right.
      predicted: the prediction.
    """
    words = normalize_answer(predicted).split()
    return max(_f1(answer.split(), words) for answer in _normalized(answers))


def _normalized(answers: Sequence[str]) -> list[str]:
    return list(filter(None, map(normalize_answer, answers))) or [""]


def _f1(right: list[str], predicted: list[str]) -> float:
    if not right or not predicted:
        return float(right == predicted)
    shared = sum((Counter(right) & Counter(predicted)).values())
    return 2 * shared / (len(right) + len(predicted))


def decode(outputs: Sequence[np.ndarray], examples: Any, class_names: Sequence[str]) -> Records:
    """The answer to each question, as `spans.answers` describes it."""
    del class_names
    return spans.answers(outputs, examples.info)


def num_outputs(data: Data) -> int:
    """Two: start and end."""
    del data
    return 2


QUESTION_ANSWERING = Task(
    name="question_answering",
    head="span",
    problem_type=None,
    data=TaskData(
        squad.QUESTIONS,
        windows.encode,
        squad.read_new,
        resolve=squad.resolve,
        once=windows.once,
    ),
    loss=TaskLoss(make_loss, batch_metrics, soft=make_span_kl),
    # Not every validation split has the scores of both kinds, so they choose no checkpoint.
    scores=TaskScores(
        scores,
        best="f1",
        higher_is_better={"exact_match": True, "f1": True, "loss": False},
    ),
    output=TaskOutput(decode, num_outputs, per_token=True),
)
