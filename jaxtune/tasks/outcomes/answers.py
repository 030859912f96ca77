"""Questions: the answer found, the best piece of text, and how both compare with the right ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtune.tasks import spans
from jaxtune.tasks.outcomes.outcome import Outcome, Told
from jaxtune.tasks.question_answering import best_exact_match, best_f1


def of_answers(outputs: Sequence[np.ndarray], examples: Any) -> Outcome:
    """Of question answering.

    Args:
      outputs: of each window, logits of start and end, [t 2].
      examples: with a `Window` of each as `info`.

    Returns:
      With, of each question, `exact` and `f1` of the answer; `span_exact` and `span_f1` of the best
      piece of text; `none_f1`, 1 where no answer is right; `margins`, the score of no answer minus
      that of the best piece, NaN without one; `has_answer`, `sure`, the answer's probability, and
      `may_lack`, whether no answer was allowed. `lengths` are those of contexts in characters.
    """
    firsts: dict[int, Any] = {}
    for window in examples.info:
        firsts.setdefault(window.row, window)
    questions = list(firsts.values())
    records = spans.answers(outputs, examples.info)
    rights = [[answer.text for answer in window.answers] for window in questions]
    best = [next((e["answer"] for e in r["n_best"] if e["answer"]), "") for r in records]
    margins = [np.nan if r["no_answer_score"] is None else r["no_answer_score"] for r in records]
    answers = [record["answer"] for record in records]
    f1 = np.array([best_f1(*pair) for pair in zip(rights, answers, strict=True)])
    sure = np.array([record["score"] for record in records])
    rules = [window.rules for window in questions]
    arrays = {
        "f1": f1,
        "exact": np.array([best_exact_match(*p) for p in zip(rights, answers, strict=True)]),
        "span_f1": np.array([best_f1(*pair) for pair in zip(rights, best, strict=True)]),
        "span_exact": np.array([best_exact_match(*p) for p in zip(rights, best, strict=True)]),
        "none_f1": np.array([best_f1(right, "") for right in rights]),
        "margins": np.array(margins, np.float64),
        "has_answer": np.array([bool(right) for right in rights]),
        "sure": sure,
        "may_lack": np.array([bool(rule.allow_no_answer) for rule in rules]),
        "thresholds": np.array([rule.no_answer_threshold for rule in rules]),
    }

    def tell(i: int) -> Told:
        question = questions[i].question
        texts = [["question", question.question], ["context", question.context]]
        told = {"said": answers[i], "right": sorted(set(rights[i])), "probability": float(sure[i])}
        return told | {"texts": texts, "f1": float(f1[i])}

    lengths = np.array([len(window.question.context) for window in questions])
    return Outcome(arrays, lengths, (1.0 - f1) * sure, tell, "characters")
