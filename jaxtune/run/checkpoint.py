"""Checkpoints of a run: the train state and the loop's few numbers, written by Orbax.

Two are kept: the newest, to go on from, and the best. A parameter that was never trained is in
neither: both name the base model and the digest of its weights instead. Each has a checksum of
every leaf and a digest of what stands beside them, so that damage is found.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import optax
from jaxtyping import Array, Int

from jaxtune.core import heap, paths, trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.io.atomic import sync
from jaxtune.io.disk import explained
from jaxtune.parallel import multihost
from jaxtune.run import values
from jaxtune.run.progress import Progress
from jaxtune.training.state import TrainState


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read, or does not hold what was written."""


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


class Averaged(NamedTuple):
    """`Stored` and an average of the parameters: Orbax takes no name more than a file has."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: Array
    settled: Params
    average: Params


class Checkpoints:
    """The checkpoints of one folder; a context manager that waits for writing to end.

    Attributes:
      folder: of all of them.
      unreadable: steps of those that were set aside when the folder was opened.
    """

    def __init__(self, folder: Path, base: Mapping[str, str] | None = None) -> None:
        """Opens the folder, which need not exist; what an interrupted save left is removed.

        Args:
          folder: of all checkpoints of a run.
          base: `model` and `sha256` of the weights that the frozen parameters come from. They are
            written into each checkpoint, and one with another sha256 is refused.
        """
        self._base = dict(base or {})
        self.folder = folder
        self.unreadable: list[int] = []
        try:
            self._checkpointer = _open(folder)
        except Exception as error:  # one of them is so damaged that Orbax shows none of them
            self._set_aside_unreadable(error)
            self._checkpointer = _open(folder)
        self._writing: tuple[int, int, Any] | None = None  # step, best step, what to wait for

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits until everything is on disk, but not for a process that may have ended."""
        if isinstance(error[1], multihost.LOST) and jax.process_count() > 1:
            return
        try:
            self._wait()
        except BaseException:
            self._close_quietly()
            raise
        if error[1] is not None:  # of a save, perhaps
            self._close_quietly()
        else:
            self._checkpointer.close()

    def _close_quietly(self) -> None:
        with contextlib.suppress(Exception):  # it says once more what a save has said
            self._checkpointer.close()

    @property
    def steps(self) -> tuple[int, ...]:
        """Of all checkpoints that are there, in order."""
        return tuple(sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints))

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint; None where there is none."""
        return max(self.steps, default=None)

    def save(self, state: TrainState, progress: Progress, settled: Params = None) -> None:
        """Writes a checkpoint; it counts only once it is whole.

        Devices with memory of their own train on while it is written. On a CPU Orbax writes from
        the state's own memory, and a step meanwhile would need a second state: so it waits.

        Args:
          state: at the step that names the checkpoint. The next step may donate its arrays.
          progress: written beside it.
          settled: parameters that are frozen now but were trained before; None elsewhere.

        Raises:
          UserError: the disk refuses it, or the one before.
        """
        step = int(state.step)
        if step in self.steps:
            return  # a resumed run is back where it was; the same bits are there already
        self._wait()
        stored = _storable(state, settled)
        beside: Any = {
            "progress": progress._asdict(),
            "base": self._base,
            "values": _signed(stored),
        }
        with explained(self.folder / str(step)):
            writing = self._checkpointer.save_async(
                step, stored, force=True, custom_metadata=beside | {"sha256": _digest(beside)}
            )
            if jax.default_backend() == "cpu":
                writing.result()
                heap.trim()
        self._writing = step, progress.best_step, writing

    def progress(self, step: int) -> Progress:
        """What was written beside the checkpoint at `step`.

        Raises:
          UserError: it is damaged, or the checkpoint belongs to another base model.
        """
        saved = self._beside(step)
        base, fields = saved["base"], saved["progress"]
        if base.get("sha256") != self._base.get("sha256"):
            raise UserError(
                f"the checkpoint {self.folder / str(step)} does not fit this model: it was trained"
                f" from {base.get('model')} with sha256 {base.get('sha256')}, but"
                f" {self._base.get('model')} has {self._base.get('sha256')}. {_REMEDY}"
            )
        return Progress(**fields | {"stage_starts": tuple(fields["stage_starts"])})

    def restore(
        self, step: int, like: TrainState, settled: Params = None
    ) -> tuple[TrainState, Params]:
        """The checkpoint at `step`.

        Args:
          step: of a checkpoint in the folder.
          like: a state of the wanted structure, shapes and shardings, which it has as arrays or as
            `jax.ShapeDtypeStruct`.
          settled: the same for what `save` was given.

        Returns:
          (state, settled).

        Raises:
          UserError: the checkpoint does not fit, or is damaged.
        """
        abstract = _abstract(like, settled)
        stored = self._load(step, abstract, abstract._fields)
        key, average = jax.random.wrap_key_data(stored.key), getattr(stored, "average", None)
        state = TrainState(stored.step, stored.params, stored.opt_state, key, average)
        return state, stored.settled

    def restore_params(
        self, step: int, like: TrainState, settled: Params = None
    ) -> tuple[Params, Params]:
        """Of the checkpoint at `step` the parameters and `settled` alone; else as `restore`.

        Where an average of the parameters is kept, that in their place.
        """
        name = "params" if like.average is None else "average"
        stored = self._load(step, _abstract(like, settled), (name, "settled"))
        return getattr(stored, name), stored.settled

    def _load(
        self, step: int, abstract: Stored | Averaged, wanted: Sequence[str]
    ) -> Stored | Averaged:
        """The fields that are wanted, checked against what was written; None for the others."""
        recorded = self._beside(step)["values"]
        self._check_layout(step, {name: layout for name, (layout, _) in recorded.items()}, abstract)
        skipped = {
            name: jax.tree.map(lambda _: ..., getattr(abstract, name))
            for name in abstract._fields
            if name not in wanted
        }
        try:
            read = self._checkpointer.load(step, abstract_state=abstract._replace(**skipped))
            stored = read._replace(**dict.fromkeys(skipped))
            found = _signed(stored)
        except (MemoryError, *multihost.LOST):
            raise
        except Exception as error:  # Orbax raises whatever the damage leads to
            raise self._damaged(step, f"{type(error).__name__} when it was read") from None
        odd = [name for name, signed in found.items() if signed != recorded[name]]
        heap.trim()
        if odd:
            raise self._damaged(step, f"{odd[0]} has other values than were written")
        return stored

    def set_aside(self, step: int) -> None:
        """Renames a damaged checkpoint, so that the run can come to its step again."""
        self._rename(step)
        self._checkpointer.reload()

    def _rename(self, step: int) -> None:
        aside = self.folder / f"{step}.damaged"
        if multihost.is_first():
            shutil.rmtree(aside, ignore_errors=True)
            with explained(self.folder):
                os.replace(self.folder / str(step), aside)
        multihost.wait("set aside")

    def _set_aside_unreadable(self, error: Exception) -> None:
        """Finds the checkpoints that cannot be opened even alone; `error` came of all together."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        for name in sorted(filter(str.isdecimal, names)):
            with tempfile.TemporaryDirectory() as alone:
                (Path(alone) / name).symlink_to((self.folder / name).absolute())
                try:
                    _open(Path(alone)).close()
                except Exception:
                    self.unreadable.append(int(name))
        for step in self.unreadable:
            self._rename(step)
        if not self.unreadable:
            with explained(self.folder):
                raise error

    def _beside(self, step: int) -> dict[str, Any]:
        """What stands beside the values, just as it was written."""
        self._wait()
        saved: Any = {}
        with contextlib.suppress(Exception):  # Orbax gives None or raises for what it cannot read
            read: Any = self._checkpointer.metadata(step).custom_metadata
            saved = dict(read)
        if saved.pop("sha256", None) != _digest(saved):
            raise self._damaged(step, "its metadata is not what was written")
        return saved

    def _check_layout(self, step: int, found: Mapping[str, str], abstract: Any) -> None:
        wanted = _layout(abstract)
        if found != wanted:  # Orbax itself lets a part of a tree pass
            odd = min(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
            raise UserError(
                f"the checkpoint {self.folder / str(step)} does not fit this model: {odd} is"
                f" {found.get(odd, 'absent')} in it, but the model's is"
                f" {wanted.get(odd, 'absent')}. {_REMEDY}"
            )

    def _wait(self) -> None:
        """Until the last save is on disk for good; then removes what is not needed any more."""
        if self._writing is None:
            return
        (step, best_step, writing), self._writing = self._writing, None
        with explained(self.folder / str(step)):
            writing.result()  # which also ends the thread of that save
            if multihost.is_first():  # Orbax leaves that to the system, which a power cut ends too
                for path in [*(self.folder / str(step)).rglob("*"), self.folder / str(step)]:
                    sync(path)
                sync(self.folder)
        for old in self.steps:
            if old not in (step, best_step):
                self._checkpointer.delete(old)

    def _damaged(self, step: int, reason: str) -> DamagedCheckpointError:
        return DamagedCheckpointError(
            f"the checkpoint {self.folder / str(step)} is damaged: {reason}."
        )


def _open(folder: Path) -> Any:
    from orbax.checkpoint import v1 as ocp  # a fifth of a second that no first table waits for

    context = ocp.Context()
    context.array.saving.use_compression = False  # floats hardly shrink: 8% for ten times the work
    return ocp.training.Checkpointer(
        str(folder.absolute()), context=context, cleanup_tmp_directories=True
    )


def newest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint of a folder, which is not opened; None where there is none."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=None)


_REMEDY = "Use another --workdir."


def _signed(tree: Any) -> dict[str, list[Any]]:
    """Layout and checksum by leaf name."""
    layout, sums = _layout(tree), values.checksums(tree)
    return {name: [layout[name], sums[name]] for name in layout}


def _digest(beside: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(beside, sort_keys=True).encode()).hexdigest()


def _layout(tree: Any) -> dict[str, str]:
    """Dtype and shape by leaf name."""
    return {name: f"{x.dtype}{list(x.shape)}" for name, x in paths.flatten(tree).items()}


def _abstract(like: TrainState, settled: Params) -> Stored | Averaged:
    """The shapes and shardings of `_storable`, for a state of arrays or of shapes."""
    data = jax.eval_shape(jax.random.key_data, like.key)
    numbers: Any = jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=like.key.sharding)
    return trees.shapes(_with_key(like, numbers, settled))


def _storable(state: TrainState, settled: Params) -> Stored | Averaged:
    """The state with its key as plain numbers, and what stands beside it."""
    return _with_key(state, jax.random.key_data(state.key), settled)


def _with_key(state: TrainState, key: Any, settled: Params) -> Stored | Averaged:
    stored = Stored(state.step, state.params, state.opt_state, key, settled)
    return stored if state.average is None else Averaged(*stored, state.average)
