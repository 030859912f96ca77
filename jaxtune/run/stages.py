"""The stages of a run in training: each trains some leaves, and goes on from the last."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import SingleDeviceSharding

from jaxtune.core import dropout, paths, trees
from jaxtune.core.types import ApplyFn, Params
from jaxtune.frozen.loader import Loader
from jaxtune.parallel.collectives import move
from jaxtune.parallel.sharding import ROWS, reshard
from jaxtune.run.checkpoint import Checkpoints
from jaxtune.run.plan import stage_start
from jaxtune.run.progress import Progress
from jaxtune.run.setup import Run, make_tx, takes_few_kernels
from jaxtune.training import few_kernels
from jaxtune.training.average import averaging, begin_average
from jaxtune.training.compiled import Compiled
from jaxtune.training.compiler_options import least_memory
from jaxtune.training.sharded_step import shard_apply, shard_sums
from jaxtune.training.state import TrainState, init_state
from jaxtune.training.step import (
    apply_whole,
    make_update,
    skip_nonfinite,
    sum_over,
)
from jaxtune.tuning import partition
from jaxtune.tuning.partition import Staged


class Stage(NamedTuple):
    """One stage in training. Most strategies have only the one of index 0.

    Attributes:
      number: from 0.
      step: (state, frozen, batch) -> (state, info), compiled for each batch shape.
      state: holds what the stage trains.
      frozen: the rest of the parameters; what an earlier stage has trained is in it too.
      loader: makes its batches.
    """

    number: int
    step: Compiled
    state: TrainState
    frozen: Params
    loader: Loader

    @property
    def compile_seconds(self) -> float:
        """What steps so far took longer for: the step, and the frozen layers below it, compiled."""
        trunk = self.loader.trunk
        return self.step.waited + (0.0 if trunk is None else trunk.waited)


def begin(
    run: Run,
    index: int,
    params: Params,
    last: TrainState | None = None,
    folder: Path | None = None,
) -> Stage:
    """A stage before its first step.

    Args:
      run: names what each stage trains.
      index: of the stage.
      params: all parameters as they are now.
      last: where the stage before it ended. Its step, its key, and the moments, counts and averages
        of the leaves that are trained in both go on.
      folder: for activations that are too many for memory; None for the system's.
    """
    state, frozen = _fresh(run, index, params, ())
    if last is not None:
        opt_state = carry(last.opt_state, state.opt_state)
        average = carry(last.average, state.average)
        state = TrainState(last.step, state.params, opt_state, last.key, average)
    return _stage(run, index, state, frozen, folder)


def begin_run(run: Run, folder: Path | None = None) -> tuple[Run, Stage]:
    """The first stage, to which the run gives its own values of what that trains.

    Returns:
      (the run as `shed` gives it, the stage).
    """
    state, frozen = _fresh(run, 0, run.params, (0,))
    jax.block_until_ready(state)  # or its temporaries would lie beside what the compiler needs
    return shed(run), _stage(run, 0, state, frozen, folder)


def _fresh(
    run: Run, index: int, params: Params, donate_argnums: tuple[int, ...]
) -> tuple[TrainState, Params]:
    """What a stage trains, at step 0, and what it does not."""
    trainable, frozen = partition.partition(params, run.tuning.stage_labels[index])
    init = _make_init(run, index)
    # One program, where by itself each shape of a parameter would want two.
    shardings = None
    if run.sharding is not None:
        shardings = run.sharding.shardings(jax.eval_shape(init, trainable))
    made = jax.jit(init, out_shardings=shardings, donate_argnums=donate_argnums)
    return made(trainable), frozen


def _like(run: Run, index: int) -> tuple[TrainState, Params]:
    """The shapes and shardings of what a stage trains, and the rest of the run's parameters.

    Parameters are to be read in the parts that devices update, so that none of them reads a copy of
    its own.
    """
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[index])
    state = jax.eval_shape(_make_init(run, index), trainable)
    if run.sharding is None:
        device = jax.tree.leaves(run.params)[0].sharding
        shardings = jax.tree.map(lambda _: device, state)
    else:
        parts = run.sharding.part_shardings(trainable)
        shardings = run.sharding.shardings(state)._replace(params=parts)
    like = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state, shardings
    )
    return like, frozen


def _make_init(run: Run, index: int) -> Callable[[Params], TrainState]:
    """(what a stage trains) -> its state at step 0."""
    tx, seed = make_tx(run, index), run.settings.seed

    def init(params: Params) -> TrainState:
        state = init_state(params, tx, jax.random.key(seed))
        return state if run.settings.optimizer.ema_decay is None else begin_average(state)

    return init


class Outline(NamedTuple):
    """A stage of which nothing has values, to compile and look at.

    Attributes:
      step: as of a `Stage`.
      state: `jax.ShapeDtypeStruct`s, each with its place.
      frozen: likewise.
    """

    step: Compiled
    state: TrainState
    frozen: Params


def outline(run: Run, index: int, device: Any) -> Outline:
    """A stage of a run on devices that need not be here.

    Args:
      run: parameters may be `jax.ShapeDtypeStruct`s.
      index: of the stage.
      device: that it runs on where the run has no mesh.
    """
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[index])
    state = jax.eval_shape(_make_init(run, index), trainable)
    step = _compiled_step(run, index, _upper(run, index), state)
    return Outline(step, *(placed_shapes(run, tree, device) for tree in (state, frozen)))


def placed_shapes(run: Run, tree: Any, device: Any) -> Any:
    """A tree of parameters or of a train state as shapes, each with the place of its leaf."""
    if run.sharding is None:
        place = SingleDeviceSharding(device)
        places = jax.tree.map(lambda _: place, tree)
    else:
        places = run.sharding.shardings(tree)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
    )


def shed(run: Run) -> Run:
    """The run once its first stage has begun: its values of what that trains are freed.

    A state has its own. What is frozen stays, for a stage that is restored, even where a later
    stage trains it.
    """
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[0])
    return run._replace(params=trees.merge(trees.free(trainable), frozen))


def _stage(run: Run, index: int, state: TrainState, frozen: Params, folder: Path | None) -> Stage:
    plan, module, cache = (
        run.tuning.trunks[index],
        run.pretrained.module,
        run.settings.activation_cache,
    )
    return Stage(
        number=index,
        step=_compiled_step(run, index, _upper(run, index), state),
        state=state,
        frozen=frozen,
        loader=Loader(run.data.stream, plan, module, frozen, cache, run.sharding, folder),
    )


def _upper(run: Run, index: int) -> ApplyFn:
    """What a stage's step computes: all of the model, or what stands on frozen layers."""
    return run.tuning.train_fn(run.pretrained.module, run.tuning.trunks[index].depth)


def _compiled_step(run: Run, index: int, apply_fn: ApplyFn, state: TrainState) -> Compiled:
    """The training step on one device, on a mesh, or under pmap."""
    sharding, parts = run.sharding, run.settings.train.num_microbatches
    read = run.task.loss.read(apply_fn)
    sums = run.task.loss.sums(read, run.goal.loss_fn, parts, dropout.same_key)
    norm = optax.tree.norm
    if takes_few_kernels(run):
        sums, norm = few_kernels.reading_together(sums), few_kernels.norm_of_all
    transform: Callable[..., Any] = jax.jit
    apply = apply_whole
    if sharding is not None and sharding.mode == "pmap":
        sums = sum_over(sums, ROWS[0], dropout.same_key)
        axes = {"axis_name": ROWS[0], "in_axes": (None, None, 0), "out_axes": (None, None)}
        transform = partial(jax.pmap, **axes)
    elif sharding is not None:
        sums, apply = shard_sums(sums, sharding, dropout.same_key), shard_apply(sharding)
        out = (sharding.shardings(state), sharding.whole)
        transform = partial(jax.jit, out_shardings=out)
    step = make_update(sums, make_tx(run, index), apply, norm)
    if run.settings.train.on_nonfinite == "skip":
        step = skip_nonfinite(step)
    decay = run.settings.optimizer.ema_decay
    if decay is not None:
        step = averaging(step, decay)
    return Compiled(step, (0,), transform, least_memory(run.pretrained.design.device))


def carry(old: Any, new: Any) -> Any:
    """The optimizer state, or average, `new` with the values of `old` under the same names."""
    known = paths.flatten(old)
    values = [known.get(name, value) for name, value in paths.flatten(new).items()]
    return jax.tree.unflatten(jax.tree.structure(new), values)


def is_due(run: Run, progress: Progress, step: int) -> bool:
    """Whether the next stage begins before step number `step` (from 0) is taken."""
    index = len(progress.stage_starts)
    if index >= len(run.tuning.stage_labels):
        return False
    strategy = run.tuning.strategy
    assert isinstance(strategy, Staged)
    start = stage_start(strategy, index, run.goal.steps_per_epoch)
    return progress.bad_evals >= strategy.stage_length if start is None else step >= start


def settled(run: Run, index: int, frozen: Params) -> Params:
    """The leaves of `frozen` that an earlier stage has trained; None elsewhere."""
    earlier = {
        name
        for labels in run.tuning.stage_labels[:index]
        for name, label in paths.flatten(labels).items()
        if label != partition.FROZEN
    }
    leaves = [leaf if name in earlier else None for name, leaf in paths.flatten(frozen).items()]
    return jax.tree.unflatten(jax.tree.structure(frozen), leaves)


def restore(
    run: Run, checkpoints: Checkpoints, step: int, folder: Path | None = None
) -> tuple[Stage, Progress]:
    """The stage that wrote the checkpoint at `step`, as it was then; `folder` as in `begin`."""
    progress = checkpoints.progress(step)
    number = len(progress.stage_starts) - 1
    like, frozen = _like(run, number)
    state, kept = checkpoints.restore(step, like, settled(run, number, frozen))
    state = state._replace(params=unfold(run, state.params))
    return _stage(run, number, state, trees.merge(kept, frozen), folder), progress


def restore_params(run: Run, checkpoints: Checkpoints, step: int) -> Params:
    """All parameters to score of the checkpoint at `step`, whose moments are not read."""
    number = len(checkpoints.progress(step).stage_starts) - 1
    like, frozen = _like(run, number)
    params, kept = checkpoints.restore_params(step, like, settled(run, number, frozen))
    return trees.merge(unfold(run, params), trees.merge(kept, frozen))


def fold(run: Run, params: Params) -> Params:
    """Of parameters the parts that devices update; the whole is freed."""
    if run.sharding is None:
        return params
    return move(params, run.sharding.part_shardings(params))


def unfold(run: Run, parts: Params) -> Params:
    """The inverse of `fold`."""
    return parts if run.sharding is None else move(parts, run.sharding.shardings(parts))


def assemble(stage: Stage) -> Params:
    """All parameters as they are now."""
    return trees.merge(stage.state.params, stage.frozen)


def to_score(run: Run, stage: Stage) -> Params:
    """All parameters as they are scored and exported: with the average of those in training.

    Without an average, as they are now.
    """
    average = stage.state.average
    if average is None:
        return assemble(stage)
    if run.sharding is not None:
        average = jax.tree.map(reshard, average, run.sharding.shardings(average))
    return trees.merge(average, stage.frozen)
