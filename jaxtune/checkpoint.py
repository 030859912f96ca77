"""Checkpoints of a run: the train state and the loop's few numbers, written by Orbax.

Two are kept: the newest, to go on from, and the best. A frozen parameter is in neither.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
from orbax.checkpoint import v1 as ocp

from jaxtune import paths
from jaxtune.errors import UserError
from jaxtune.state import TrainState
from jaxtune.types import Params


class Progress(NamedTuple):
    """What the loop carries from step to step besides the train state.

    Attributes:
      best_step: step of the best evaluation so far; -1 before the first.
      best_value: its score.
      bad_evals: evaluations since then that were not better.
      loss_total: sum of the training losses since the last line of the log.
      loss_weight: sum of their weights.
    """

    best_step: int = -1
    best_value: float = 0.0
    bad_evals: int = 0
    loss_total: float = 0.0
    loss_weight: float = 0.0


class KeepNewestAndBest:
    """Orbax's preservation policy for the two checkpoints that a run needs."""

    def __init__(self, best_step: int = -1) -> None:
        """Keeps the checkpoint of `best_step` besides the newest; -1 keeps the newest alone."""
        self.best_step = best_step

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """True for the last and the best; called by Orbax after each save."""
        del context
        newest = max(checkpoint.step for checkpoint in checkpoints)
        return [checkpoint.step in (newest, self.best_step) for checkpoint in checkpoints]


class Checkpoints:
    """The checkpoints of one folder; a context manager that waits for writing to end."""

    def __init__(self, folder: Path) -> None:
        """Opens the folder, which need not exist; what an interrupted save left is removed."""
        self._policy = KeepNewestAndBest()
        self._checkpointer = ocp.training.Checkpointer(
            str(folder.absolute()), preservation_policy=self._policy, cleanup_tmp_directories=True
        )
        self._writing: Any = None
        self.folder = folder

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits until everything is on disk."""
        try:
            self._wait()
        finally:
            self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, progress: Progress) -> None:
        """Writes a checkpoint in the background; it counts only once it is whole.

        Args:
          state: at the step that names the checkpoint. The next step may donate its arrays: Orbax
            holds the values once this returns.
          progress: written beside it.
        """
        step = int(state.step)
        if any(checkpoint.step == step for checkpoint in self._checkpointer.checkpoints):
            return  # a resumed run is back where it was; the same bits are there already
        self._wait()
        self._policy.best_step = progress.best_step
        self._writing = self._checkpointer.save_async(
            step,
            _storable(state),
            force=True,
            custom_metadata=progress._asdict(),
        )

    def restore_latest(self, like: TrainState) -> tuple[TrainState, Progress]:
        """The newest checkpoint.

        Args:
          like: a state of the wanted structure, shapes and shardings.

        Raises:
          UserError: the checkpoint does not fit, or is damaged.
        """
        step = self.latest_step
        assert step is not None, "there is no checkpoint"
        state = self._load(step, like)
        saved: Any = self._checkpointer.metadata(step).custom_metadata or {}
        if set(saved) != set(Progress._fields):  # Orbax gives {} for metadata it cannot read
            raise self._error(step, "its metadata is damaged")
        return state, Progress(**saved)

    def restore_params(self, step: int, like: TrainState) -> Params:
        """The trainable parameters of the checkpoint at `step`."""
        return self._load(step, like).params

    def _load(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _storable(like)
        )
        self._wait()
        try:
            found, wanted = _layout(self._checkpointer.metadata(step).metadata), _layout(abstract)
            if found and found != wanted:  # Orbax itself lets a part of a tree pass
                odd = min(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
                raise ValueError(
                    f"{odd} is {found.get(odd, 'absent')} in it, but the model's is"
                    f" {wanted.get(odd, 'absent')}"
                )
            stored = self._checkpointer.load(step, abstract_state=abstract)
        except Exception as error:  # Orbax raises whatever the damage leads to
            cause: BaseException = error
            while cause.__cause__ or cause.__context__:  # it is wrapped in several others
                cause = cause.__cause__ or cause.__context__ or cause
            first = next(iter(str(cause).splitlines()), "")
            raise self._error(
                step, f"{type(cause).__name__}: {first[:300].rstrip(' .:')}"
            ) from None
        key = jax.random.wrap_key_data(stored.key, impl=jax.random.key_impl(like.key))
        return stored._replace(key=key)

    def _wait(self) -> None:
        """Until the last save is on disk; what went wrong in it is raised here."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()  # which also ends the thread of that save

    def _error(self, step: int, reason: str) -> UserError:
        return UserError(
            f"the checkpoint {self.folder / str(step)} cannot be read or does not fit this model:"
            f" {reason}. Remove that folder to go on from the one before, or use another --workdir."
        )


def _layout(tree: Any) -> dict[str, str]:
    """Dtype and shape by leaf name."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in paths.flatten(tree).items()}


def _storable(state: TrainState) -> TrainState:
    """The state with its key as plain numbers."""
    return state._replace(key=jax.random.key_data(state.key))
