"""From logits of starts and ends to the answer of each question."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtune.data.text.windows import Window
from jaxtune.tasks.probabilities import softmax
from jaxtune.tasks.task import Records


class Span(NamedTuple):
    """A piece of a context and its score; start and end are equal for no answer.

    Attributes:
      start: of its first character.
      end: after its last character.
      score: sum of the logits of start and end, in nats.
    """

    start: int
    end: int
    score: float


def best_spans(logits: Float[np.ndarray, "t 2"], window: Window) -> Iterator[Span]:
    """The `n_best` spans of the window's context with the highest sum of start and end logit.

    White space at the ends of a span does not belong to it; a span of nothing else is left out.

    Args:
      logits: of start and end of each token.
      window: which tokens are of the context, and the limits.

    Yields:
      Spans of at most `max_answer_length` tokens, best first; equals in the order of the text.
    """
    count = len(window.spans)
    if not count:
        return
    start, end = logits[window.first : window.first + count].astype(np.float64).T
    longest = min(window.rules.max_answer_length, count)
    beyond = np.full(longest - 1, -np.inf)
    reach = np.lib.stride_tricks.sliding_window_view(np.concatenate([end, beyond]), longest)
    sums = (start[:, None] + reach).ravel()  # [c longest]: from token i to token i + k
    n = min(window.rules.n_best, int(np.isfinite(sums).sum()))
    good = np.flatnonzero(sums >= np.partition(sums, -n)[-n])
    for place in good[np.argsort(-sums[good], kind="stable")][:n]:
        first, more = divmod(int(place), longest)
        begin, stop = int(window.spans[first, 0]), int(window.spans[first + more, 1])
        text = window.question.context[begin:stop]
        if text.strip():
            begin += len(text) - len(text.lstrip())
            yield Span(begin, begin + len(text.strip()), float(sums[place]))


def answers(outputs: Sequence[np.ndarray], windows: Sequence[Window]) -> Records:
    """One record for each question, from all windows on its context.

    The null score is the least sum of both logits of the first token over the windows. Where no
    answer is allowed and the null score exceeds the best span's by more than
    `no_answer_threshold`, the answer is empty.

    Args:
      outputs: of each window, logits of start and end, [t 2].
      windows: those of a question next to each other.

    Returns:
      `id`, `answer`, `score` (its probability among the n best), `start` and `end` (characters of
      the context; both 0 for an empty answer), `no_answer_score` (null score minus that of the
      best span, in nats; None without a span) and `n_best`, a list of the same first four fields.

    Source: Devlin et al. 2019, BERT, section 4.3; `run_qa.py` of transformers.
    """
    pairs = zip(windows, outputs, strict=True)
    return [_answer(list(group)) for _, group in groupby(pairs, key=lambda pair: pair[0].row)]


def _answer(group: list[tuple[Window, np.ndarray]]) -> dict[str, Any]:
    question, rules = group[0][0].question, group[0][0].rules
    found: dict[tuple[int, int], Span] = {}
    for window, logits in group:
        for span in best_spans(logits, window):  # windows that overlap share spans
            known = found.setdefault(span[:2], span)
            found[span[:2]] = max(known, span, key=lambda s: s.score)
    spans = sorted(found.values(), key=lambda s: (-s.score, s.start, s.end))[: rules.n_best]
    null = Span(0, 0, min(float(logits[0].astype(np.float64).sum()) for _, logits in group))
    margin = null.score - spans[0].score if spans else None
    if rules.allow_no_answer or not spans:
        chosen = spans[0] if margin is not None and margin <= rules.no_answer_threshold else null
        spans = sorted([*spans, null], key=lambda s: -s.score)
    else:
        chosen = spans[0]
    shares = softmax(np.array([span.score for span in spans]))
    entries = {
        span: {
            "answer": question.context[span.start : span.end],
            "score": float(p),
            "start": span.start,
            "end": span.end,
        }
        for span, p in zip(spans, shares, strict=True)
    }
    return {
        "id": question.id,
        **entries[chosen],
        "no_answer_score": margin,
        "n_best": list(entries.values()),
    }
