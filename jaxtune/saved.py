"""A saved model ready to predict, from a folder in the transformers layout or of an adapter."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxtune.adapted import open_model
from jaxtune.compiled import Compiled
from jaxtune.data import batches
from jaxtune.data.examples import Examples, load_tokenizer
from jaxtune.errors import UserError
from jaxtune.evaluate import predict_all
from jaxtune.export import read_card
from jaxtune.models.pretrained import Pretrained, is_regression
from jaxtune.report import Report
from jaxtune.run import NUM_LENGTHS, check_max_length, check_tokens, check_vocabulary
from jaxtune.step import make_predict_step
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.regression import REGRESSION
from jaxtune.tasks.task import Task


class SavedModel(NamedTuple):
    """What prediction needs.

    Attributes:
      pretrained: the model and all its parameters.
      tokenizer: from the same folder.
      task: read from the folder's config.json.
      card: the folder's jaxtune.json; empty where another tool wrote it.
      max_length: tokens, special ones included.
      step: (parameters, batch) -> (no metrics, outputs [b c]).
    """

    pretrained: Pretrained
    tokenizer: Any
    task: Task
    card: dict[str, Any]
    max_length: int
    step: Compiled


def open_saved(
    folder: str, compute_dtype: str = "float32", max_length: int | None = None
) -> SavedModel:
    """Loads a fine-tuned model.

    Args:
      folder: in the transformers layout, with a head and a tokenizer; or with what was trained and
        the name of the base model, as `adapted.open_model` reads it.
      compute_dtype: of the products.
      max_length: in tokens; None takes what the model was trained with, or its limit.

    Raises:
      UserError: no such folder, no head, or files that do not belong together.
    """
    pretrained, tokenizer_folder = open_model(folder, jnp.dtype(compute_dtype))
    task = REGRESSION if is_regression(pretrained.hf_config) else CLASSIFICATION
    problem = pretrained.hf_config.get("problem_type")
    if problem not in (None, task.problem_type):
        raise UserError(f"{folder}: problem_type {problem!r} is not supported yet.")
    tokenizer = load_tokenizer(tokenizer_folder)
    check_vocabulary(tokenizer, pretrained.config.vocab_size, pretrained.folder)
    card = read_card(pretrained.folder)
    limit = pretrained.config.max_position_embeddings
    chosen = max_length or card.get("max_length") or min(limit, tokenizer.model_max_length)
    check_max_length(chosen, limit, pretrained.folder)
    predict_step = make_predict_step(pretrained.apply_fn)
    no_holes = jax.tree.map(lambda _: None, pretrained.params)
    step = Compiled(lambda params, batch: ({}, predict_step(params, no_holes, batch)))
    return SavedModel(pretrained, tokenizer, task, card, chosen, step)


def outputs_of(
    saved: SavedModel, examples: Examples, batch_size: int, report: Report, name: str
) -> Float[np.ndarray, "n c"]:
    """Outputs of all examples in their order, with a progress bar.

    Args:
      saved: the model.
      examples: n tokenized examples.
      batch_size: examples a step.
      report: shows the bar.
      name: of what is predicted, for the bar.

    Raises:
      UserError: a token that the model has no embedding for, or outputs that are not finite.
    """
    check_tokens(examples, saved.pretrained.config, saved.pretrained.folder)
    limit = saved.pretrained.config.max_position_embeddings
    lengths = batches.choose_lengths(examples.lengths, NUM_LENGTHS, limit)
    with report.bar(f"predicting {name}", len(examples.lengths)) as update:
        _, outputs = predict_all(
            lambda batch: saved.step(saved.pretrained.params, batch),
            examples,
            lengths,
            batch_size,
            saved.tokenizer.pad_token_id,
            update,
        )
    if not np.isfinite(outputs).all():
        raise UserError(
            f"{saved.pretrained.folder} gives outputs that are not finite: its weights are damaged,"
            " or too large for the compute dtype."
        )
    return outputs
