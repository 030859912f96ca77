"""Checkpoints of a run: the train state and the loop's few numbers, written by Orbax.

Two are kept: the newest, to go on from, and the best. A parameter that was never trained is in
neither: both name the base model and the digest of its weights instead.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import optax
from jaxtyping import Array, Int

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.parallel import multihost
from jaxtune.run.progress import Progress
from jaxtune.training.state import TrainState


class Stored(NamedTuple):
    """What a checkpoint holds: a train state with its key as plain numbers, and `settled`.

    Attributes:
      settled: parameters that an earlier stage has trained and this one has not; None elsewhere.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: Array
    settled: Params


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

    def __init__(self, folder: Path, base: Mapping[str, str] | None = None) -> None:
        """Opens the folder, which need not exist; what an interrupted save left is removed.

        Args:
          folder: of all checkpoints of a run.
          base: `model` and `sha256` of the weights that the frozen parameters come from. They are
            written into each checkpoint, and one with another sha256 is refused.
        """
        from orbax.checkpoint import v1 as ocp  # a fifth of a second that no first table waits for

        self._base = dict(base or {})
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
        """Waits until everything is on disk, but not for a process that may have ended."""
        if isinstance(error[1], multihost.LOST) and jax.process_count() > 1:
            return
        try:
            self._wait()
        finally:
            self._checkpointer.close()

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, state: TrainState, progress: Progress, settled: Params = None) -> None:
        """Writes a checkpoint in the background; it counts only once it is whole.

        Args:
          state: at the step that names the checkpoint. The next step may donate its arrays: Orbax
            holds the values once this returns.
          progress: written beside it.
          settled: parameters that are frozen now but were trained before; None elsewhere.
        """
        step = int(state.step)
        if any(checkpoint.step == step for checkpoint in self._checkpointer.checkpoints):
            return  # a resumed run is back where it was; the same bits are there already
        self._wait()
        self._policy.best_step = progress.best_step
        beside: Any = {"progress": progress._asdict(), "base": self._base}
        self._writing = self._checkpointer.save_async(
            step,
            _storable(state, settled),
            force=True,
            custom_metadata=beside,
        )

    def progress(self, step: int) -> Progress:
        """What was written beside the checkpoint at `step`.

        Raises:
          UserError: it is damaged, or the checkpoint belongs to another base model.
        """
        self._wait()
        saved: Any = {}
        with contextlib.suppress(Exception):  # Orbax gives {} or raises for what it cannot read
            saved = self._checkpointer.metadata(step).custom_metadata or {}
        fields = saved.get("progress", {})
        if set(fields) != set(Progress._fields):
            raise self._error(step, "its metadata is damaged")
        base = saved.get("base", {})
        if base.get("sha256") != self._base.get("sha256"):
            raise self._error(
                step,
                f"it was trained from {base.get('model')} with sha256 {base.get('sha256')}, but"
                f" {self._base.get('model')} has {self._base.get('sha256')}",
            )
        return Progress(**fields | {"stage_starts": tuple(fields["stage_starts"])})

    def restore(
        self, step: int, like: TrainState, settled: Params = None
    ) -> tuple[TrainState, Params]:
        """The checkpoint at `step`.

        Args:
          step: of a checkpoint in the folder.
          like: a state of the wanted structure, shapes and shardings.
          settled: the same for what `save` was given.

        Returns:
          (state, settled).

        Raises:
          UserError: the checkpoint does not fit, or is damaged.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            _storable(like, settled),
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
        return TrainState(stored.step, stored.params, stored.opt_state, key), stored.settled

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


def _storable(state: TrainState, settled: Params) -> Stored:
    """The state with its key as plain numbers, and what stands beside it."""
    data = jax.random.key_data(state.key)
    return Stored(state.step, state.params, state.opt_state, data, settled)
