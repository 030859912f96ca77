"""Whole runs in Python: train, score, predict, embed, generate, with the commands' numbers."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxtune.data.sources.memory import InMemory, from_memory
from jaxtune.data.text.retrieval import is_retrieval
from jaxtune.models.sampling import Sampling
from jaxtune.run import generation, predictions
from jaxtune.run import train as whole
from jaxtune.run.config import load_config, settings_of
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook
from jaxtune.run.predictions import How
from jaxtune.run.retrieval import retrieve
from jaxtune.run.saved import SavedModel, open_saved
from jaxtune.run.trackers import Tracker
from jaxtune.settings import Settings


def train(
    config: str | Path | ConfigDict | Settings,
    workdir: str | Path,
    *,
    data: Mapping[str, InMemory] | None = None,
    hooks: Sequence[Hook] = (),
    trackers: Sequence[Tracker] = (),
    report: Report | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and exports one run, as `jaxtune train` does; it may go on where it was.

    Args:
      config: a config file or the name of one that jaxtune brings, what `default_config` gives
        with fields of your own, or settings.
      workdir: folder of the run, made if absent.
      data: rows in memory by split, in the place of `config.data.path`: `train`, and where there
        are any `validation` and `test`. Each is a `datasets.Dataset`, a mapping from column to
        values (lists or numpy arrays), or a sequence of mappings.
      hooks: called between steps.
      trackers: take the numbers of the run, beside metrics.jsonl.
      report: where a person reads along; None prints.

    Returns:
      What `results.json` holds; the model is in the folder `model` of the workdir.

    Raises:
      UserError: bad input, or a workdir that holds another run.
      InterruptedRunError: a signal came; the checkpoint is written.
    """
    tables = data and {split: from_memory(rows, split) for split, rows in data.items()}
    return whole.train(
        _settings(config, {} if data is None else {"data.path": "memory"}),
        Path(workdir).expanduser(),
        report or Report(),
        tables=tables,
        hooks=hooks,
        trackers=trackers,
    )


class Model(NamedTuple):
    """A saved model in memory; `load` opens one.

    Attributes:
      saved: the model, its tokenizer or image processor, and its task.
    """

    saved: SavedModel

    def predict(
        self,
        inputs: InMemory | str | Path,
        *,
        batch_size: int = 64,
        top_k: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> list[dict]:
        """One record for each row, in order: what `jaxtune predict` writes of it.

        Where any row has nothing to predict on, each record has a `reason`, None where there is
        one, and that of such a row is empty. A model that was trained with a validation split gives
        calibrated probabilities.

        Args:
          inputs: a sequence of texts, of pairs of texts or of images, or rows as `train` takes
            them; or a file. A string is a path.
          batch_size: examples a step; it changes no record.
          top_k: classes whose probability is told, the likeliest first; None for all.
          columns: of the inputs, which stand in the records first; None for none. A predicted field
            of the same name is called `predicted_NAME`.

        Raises:
          UserError: names the row and column of what is wrong, or a model without a head.
        """
        return predictions.predict(self.saved, inputs, batch_size, top_k, columns)

    def embed(
        self,
        inputs: InMemory | str | Path,
        *,
        pooling: How | None = "own",
        prompt: str | None = None,
        batch_size: int = 64,
    ) -> Float[np.ndarray, "n d"] | list[Float[np.ndarray, "t d"]]:
        """The states of the last layer, float32, pooled over the tokens of each text or image.

        Args:
          inputs: as of `predict`.
          pooling: `own`, that of an embedding model, normalised where it says so, and `mean` of
            others; or the `mean` over all tokens, special ones included, or their `first` or
            `last`; None pools nothing, and gives a list of n arrays.
          prompt: `query` or `document`, what an embedding model is to have before each text; None
            puts nothing there.
          batch_size: examples a step.

        Raises:
          UserError: names the row of what is wrong; or a prompt that the model has not.
        """
        return predictions.embed(self.saved, inputs, pooling, batch_size, prompt)

    def generate(
        self,
        prompts: InMemory | str | Path,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[dict[str, str]]:
        """What a causal language model writes after each prompt, as `prompt` and `text`, in order.

        A text ends at the token that ends texts, which is not part of it. An empty prompt begins a
        text. Warns where prompt and text fill the model's positions.

        Args:
          prompts: a sequence of texts, or rows as `train` takes them; or a file. A string is a
            path.
          max_new_tokens: the most of each text.
          temperature: the logits are divided by it before a token is drawn; 0 draws none, and takes
            the likeliest.
          top_p: a token is drawn from the fewest that have so much probability together, the
            likeliest; 1 takes all.
          top_k: a token is drawn from so many of the likeliest; None takes all.
          seed: of what is drawn. A text follows from it, the prompt and the number of its row.
          batch_size: prompts that are gone on with at once.

        Raises:
          UserError: a model for another task, a value out of its range, or a prompt that leaves no
            position; names its row.
        """
        sampling = Sampling(temperature, top_p, top_k)
        plan = generation.Plan(max_new_tokens, sampling, seed, batch_size)
        records, notes = generation.generate_in_memory(self.saved, prompts, plan)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return records


def load(path: str | Path, *, compute_dtype: str = "float32", head: str | None = None) -> Model:
    """A saved model that predicts and embeds in memory.

    Args:
      path: a model or adapter folder, or a hub id. One without a head embeds, but does not predict.
      compute_dtype: of the products, `float32` or `bfloat16`.
      head: `MODULE:FUNCTION` of the head, where the model was trained with one of your own.

    Raises:
      UserError: no such folder, or files that do not belong together.
    """
    return Model(open_saved(str(path), compute_dtype, needs_head=False, head=head))


def evaluate(
    model: str | Path | Model,
    data: InMemory | str | Path,
    *,
    batch_size: int = 64,
    rankings: str | Path | None = None,
) -> dict[str, float]:
    """The mean loss and the task's scores of a saved model on labelled rows.

    Args:
      model: from `load`, or what `load` takes.
      data: rows as `train` takes them for a split; or a file or folder of them, of whose splits
        `test` is taken, else `validation`. The columns are those that the model was trained on.
        For a model of embeddings also a folder of a retrieval test, in the layout of BEIR.
      batch_size: examples a step; it changes no score.
      rankings: of a retrieval test: a file that gets the best documents of each query, in
        trec_eval's format; None writes none.

    Returns:
      Scores by name, as the last lines of a run have them; NaN where one is undefined.

    Raises:
      UserError: names the row and column of what is wrong, or a class that the model does not have.
    """
    model = model if isinstance(model, Model) else load(model)
    if isinstance(data, str | Path) and is_retrieval(folder := Path(data).expanduser()):
        file = None if rankings is None else Path(rankings).expanduser()
        return retrieve(model.saved, folder, batch_size, file)
    return predictions.scores(model.saved, data, batch_size)


def _settings(config: str | Path | ConfigDict | Settings, overrides: Mapping[str, str]) -> Settings:
    if isinstance(config, Settings):
        return config
    if isinstance(config, ConfigDict):
        return settings_of(config.to_dict(), overrides)
    return load_config(str(config), overrides)
