"""What trains a model well on so many rows: settings from published recipes, with the source."""

import math
from typing import Any, NamedTuple

_FEW, _SOME, _MANY = 1_000, 10_000, 100_000
"""Rows."""


class Size(NamedTuple):
    """How large a model is.

    Attributes:
      family: its `model_type`.
      width: of its hidden states; of a network of images, 0.
      layers: how many.
    """

    family: str
    width: int
    layers: int

    @property
    def is_small(self) -> bool:
        """Whether it is one of the small ones, which take larger rates."""
        return self.width <= 512

    @property
    def is_large(self) -> bool:
        """Whether it is larger than the base models."""
        return self.width >= 1024


class Choice(NamedTuple):
    """A setting, and why."""

    setting: str
    value: Any
    why: str


def recipe(task: str, size: Size, num_rows: int) -> list[Choice]:
    """Rate, batch, epochs and patience.

    Args:
      task: as `config.task` has it.
      size: of the model.
      num_rows: training rows; of a language model, those that fill a block.
    """
    if task == "image_classification":
        return _of_images(size, num_rows)
    if task == "few_shot":
        return _of_pairs()
    if task in ("causal_lm", "masked_lm"):
        return _of_language_models(num_rows)
    rate, why = _rate(task, size)
    found = [Choice("optimizer.learning_rate", rate, why)]
    batch, source = (16, "Devlin et al. 2019, A.3") if num_rows < _SOME else (32, "")
    if batch != 32:
        found.append(Choice("train.batch_size", batch, f"of 16 and 32, {source}: more steps"))
    return found + _epochs(task, size, num_rows, batch)


def _rate(task: str, size: Size) -> tuple[float, str]:
    """The peak, and where it comes from."""
    if size.family == "gpt2":
        return 6.25e-5, "that of Radford et al. 2018 for GPT"
    if size.is_small:
        grid = "of the grid 3e-5 to 3e-4 of Turc et al. 2019 for small models"
        if task == "token_classification":
            return 3e-4, f"{grid}; tags want the largest"
        if task == "regression":
            return 5e-5, grid
        if task == "question_answering":
            return 2e-4, grid
        return 1e-4, grid
    if size.is_large:
        return 1e-5, "large models: smaller than the grid of Devlin et al. 2019"
    if task == "question_answering":
        return 3e-5, "of the grid 2e-5 to 5e-5 of Devlin et al. 2019, A.3"
    if task in ("token_classification", "regression"):
        return 5e-5, "of the grid 2e-5 to 5e-5 of Devlin et al. 2019, A.3"
    return 2e-5, "that of Sun et al. 2019, and of Mosbach et al. 2021 for few rows"


def _epochs(task: str, size: Size, num_rows: int, batch: int) -> list[Choice]:
    """As many epochs as make enough steps, of which few rows need many."""
    steps = 250 if size.is_small else 600
    fewest, most = (2 if task == "question_answering" or num_rows >= _MANY else 3), 20
    epochs = min(max(math.ceil(steps * batch / max(num_rows, 1)), fewest), most)
    if num_rows < _SOME:
        why = (
            f"few rows need many: {math.ceil(num_rows / batch)} steps each; up to 20, Mosbach et"
            " al. 2021, Zhang et al. 2021"
        )
        if task != "question_answering":
            epochs = max(epochs, 4)
    else:
        why = "2 to 4, Devlin et al. 2019, A.3"
    found = [Choice("train.num_epochs", epochs, why)]
    if epochs >= 5:
        patience = max(3, epochs // 4)
        found.append(Choice("train.patience", patience, "evaluations without a better one: stop"))
    return found


def _of_language_models(num_rows: int) -> list[Choice]:
    """Those of the examples of transformers."""
    source = "as the examples of transformers for language models have it"
    return [
        Choice("optimizer.learning_rate", 5e-5, source),
        Choice("optimizer.weight_decay", 0.0, source),
        Choice("train.batch_size", 8, f"blocks; {source}"),
        Choice("train.num_epochs", 3 if num_rows >= _FEW else 5, source),
    ]


def _of_pairs() -> list[Choice]:
    """SetFit's."""
    source = "that of SetFit, Tunstall et al. 2022"
    return [
        Choice("optimizer.learning_rate", 2e-5, source),
        Choice("optimizer.weight_decay", 0.0, source),
        Choice("train.batch_size", 4, "groups, which have about four pairs each"),
        Choice("train.num_epochs", 1, source),
    ]


def _of_images(size: Size, num_rows: int) -> list[Choice]:
    """A start, for no paper has one recipe for all: `jaxtune lr-find` looks for the rate."""
    batch = 32 if num_rows < _SOME else 128
    rate = 2e-4 if size.family in ("vit", "dinov2") else 1e-3
    epochs = min(max(math.ceil(1_000 * batch / max(num_rows, 1)), 5), 20)
    return [
        Choice("data.augmentation.crop", "resized", "parts of images, as pretraining has them"),
        Choice("data.augmentation.flip", True, "unless left and right differ, as in writing"),
        Choice("optimizer.learning_rate", rate, "a start; jaxtune lr-find looks for a better one"),
        Choice("train.batch_size", batch, ""),
        Choice("train.num_epochs", epochs, "few images need many"),
        Choice("train.patience", 4, "evaluations without a better one: stop"),
    ]
