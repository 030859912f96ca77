"""The sections of a language model: the loss of its blocks, and the texts it knows least."""

from typing import Any

import numpy as np

from jaxtune.reporting import errors, slices
from jaxtune.reporting.facts import Facts
from jaxtune.reporting.figures import colour
from jaxtune.reporting.parts import Plot, Section, number
from jaxtune.run.predictions_folder import Kept
from jaxtune.tasks.language_modeling import perplexity


def sections(facts: Facts, kept: Kept, column: Any) -> list[Section | None]:
    """Of blocks of tokens."""
    del facts
    total, counts = kept.arrays["log_likelihoods"], kept.arrays["counts"]
    some = counts > 0
    losses = -total[some] / counts[some]

    def perplexity_of(rows: np.ndarray) -> str:
        weight = float(counts[rows].sum())
        return number(perplexity(-float(total[rows].sum()) / weight) if weight else None)

    def paint(axes: Any) -> None:
        axes.hist(losses, bins=min(40, max(5, int(len(losses) ** 0.5))), color=colour(0))
        axes.set(xlabel="mean loss of a block (nats a token)", ylabel="blocks")

    plots = [Plot("block_loss", "blocks by their mean loss", paint)] if len(losses) else []
    note = "Chosen by the mean loss of their scored tokens; blocks of few such tokens are left out."
    return [
        Section("Blocks", plots=plots),
        slices.section(kept, [("perplexity", perplexity_of)], column),
        errors.section(kept, (), "Worst texts", note),
    ]
