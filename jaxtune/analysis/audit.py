"""What a strategy costs before anything is computed: parameters, bytes, rates and FLOPs by group.

labels = partition.label(strategy, params)
found = audit(apply_fn, loss_fn, params, labels, batch, Updates(1e-3, weight_decay=0.01))
report.grid("what trains", HEADER, audit_rows(found.groups))
report.line(flops_line(found.flops, found.full_flops, "32 x 48 tokens"))
"""

import posixpath
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import optax

from jaxtune.analysis.flops import step_flops
from jaxtune.core import paths, trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Batch, LossFn, Params
from jaxtune.core.units import human_bytes, human_flops
from jaxtune.training import optimizers
from jaxtune.tuning import partition
from jaxtune.tuning.partition import FROZEN, TRAINABLE

HEADER = ("group", "parameters", "weights", "optimizer", "rate", "decay")
"""The columns of `audit_rows`."""


class Updates(NamedTuple):
    """How a step changes what it trains.

    Attributes:
      learning_rate: the peak.
      weight_decay: of the leaves that `optimizers.is_decayed` names.
      optimizer: as of `make_optimizer`.
      multipliers: a tree of float like the parameters, the factor on the rate of each leaf; None
        for 1.
    """

    learning_rate: float
    weight_decay: float
    optimizer: str | optimizers.Scaler = "adamw"
    multipliers: Any = None


class Group(NamedTuple):
    """Leaves that are treated alike.

    Attributes:
      name: the label, and what sets the group apart from others of that label.
      parameters: number of scalars.
      num_bytes: of the parameters.
      optimizer_bytes: of the moments that the optimizer keeps for them.
      learning_rate: the peak; None where frozen.
      weight_decay: None where there is none.
    """

    name: str
    parameters: int
    num_bytes: int
    optimizer_bytes: int
    learning_rate: float | None
    weight_decay: float | None


class Audit(NamedTuple):
    """The cost of a strategy.

    Attributes:
      groups: in the order of the parameter tree; all frozen leaves are one.
      flops: floating-point operations of one step; None where the backend does not count them.
      full_flops: the same of a step that trains every parameter of the model.
    """

    groups: tuple[Group, ...]
    flops: float | None
    full_flops: float | None


def audit(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    params: Params,
    labels: Any,
    batch: Batch,
    updates: Updates,
    base: tuple[ApplyFn, Params] | None = None,
) -> Audit:
    """Counts what a training step reads, keeps and computes; only shapes are looked at.

    Args:
      apply_fn: the model, with what the strategy adds.
      loss_fn: sum of losses and of weights.
      params: all parameters, arrays or `jax.ShapeDtypeStruct`.
      labels: a tree of str like `params`, as `partition.label` gives it.
      batch: one batch, or its shapes.
      updates: rate, decay and optimizer.
      base: (apply_fn, parameters) of the model as it was before the strategy added parameters;
        None where it added none.

    Raises:
      UserError: labels or multipliers of another structure than `params`, or no such optimizer.

    Source: Lee, Tang and Lin 2019, What Would Elsa Do?, which freezes layers; a frozen layer below
    all trained ones saves two of its three parts: the gradients of its input and of its weights.
    """
    groups = find_groups(params, labels, updates)
    return Audit(groups, *count_flops(apply_fn, loss_fn, params, labels, batch, updates, base))


def count_flops(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    params: Params,
    labels: Any,
    batch: Batch,
    updates: Updates,
    base: tuple[ApplyFn, Params] | None = None,
) -> tuple[float | None, float | None]:
    """`flops` and `full_flops` of an `Audit`, which takes as long as tracing two steps.

    Args:
      apply_fn: the model, with what the strategy adds.
      loss_fn: sum of losses and of weights.
      params: all parameters, arrays or `jax.ShapeDtypeStruct`.
      labels: a tree of str like `params`, which `find_groups` has found to be so.
      batch: one batch, or its shapes.
      updates: rate, decay and optimizer.
      base: as of `audit`.
    """

    def flops(apply_fn: ApplyFn, params: Params, labels: Any) -> float | None:
        tx = _optimizer(updates, labels)
        return step_flops(apply_fn, loss_fn, tx, params, labels, batch)

    own = full = flops(apply_fn, params, labels)
    if base is not None or FROZEN in jax.tree.leaves(labels):
        full_apply, full_params = base or (apply_fn, params)
        full = flops(full_apply, full_params, jax.tree.map(lambda _: TRAINABLE, full_params))
    return own, full


def audit_rows(groups: Iterable[Group]) -> list[tuple[str, ...]]:
    """One row of text for each group, with the columns of HEADER."""
    return [
        (
            group.name,
            f"{group.parameters:,}",
            human_bytes(group.num_bytes),
            human_bytes(group.optimizer_bytes),
            "-" if group.learning_rate is None else f"{group.learning_rate:.3g}",
            "-" if group.weight_decay is None else f"{group.weight_decay:g}",
        )
        for group in groups
    ]


def flops_line(flops: float | None, full_flops: float | None, batch_name: str) -> str:
    """The cost of a step beside that of a full one, in words.

    Args:
      flops: of an `Audit`.
      full_flops: likewise.
      batch_name: the batch that was counted, such as `32 x 48 tokens`.
    """
    if flops is None or not full_flops:
        return f"one step costs an unknown number of floating-point operations ({batch_name})"
    return (
        f"one step costs {flops / full_flops:.0%} of the floating-point operations of a full one"
        f" ({human_flops(flops)} of {human_flops(full_flops)}, {batch_name})"
    )


class _Leaf(NamedTuple):
    name: str
    shape: Any
    label: str
    multiplier: float
    is_decayed: bool
    optimizer_bytes: int


def find_groups(params: Params, labels: Any, updates: Updates) -> tuple[Group, ...]:
    """The `groups` of an `Audit`: the distinct (label, multiplier, decayed or not).

    Args:
      params: all parameters, arrays or `jax.ShapeDtypeStruct`.
      labels: a tree of str like `params`.
      updates: rate, decay and optimizer.

    Raises:
      UserError: as `audit`.
    """
    learning_rate, weight_decay, _, multipliers = updates
    if multipliers is None:
        multipliers = jax.tree.map(lambda _: 1.0, params)
    for name, tree in (("labels", labels), ("multipliers", multipliers)):
        _check_structure(name, tree, params)
    flat = paths.flatten(_shapes(params))
    trainable, _ = partition.partition(_shapes(params), labels)
    kept = _state_bytes(jax.eval_shape(_optimizer(updates, labels).init, trainable), flat)
    found: dict[tuple[Any, ...], list[_Leaf]] = {}
    columns = (flat.items(), jax.tree.leaves(labels), jax.tree.leaves(multipliers))
    for (name, shape), label, factor in zip(*columns, strict=True):
        decayed = weight_decay > 0 and optimizers.is_decayed(name, shape)
        leaf = _Leaf(name, shape, label, factor, decayed, kept.get(name, 0))
        found.setdefault((label,) if label == FROZEN else (label, factor, decayed), []).append(leaf)
    groups = []
    for leaves in found.values():
        first = leaves[0]
        trains = first.label != FROZEN
        shapes = [leaf.shape for leaf in leaves]
        groups.append(
            Group(
                _group_name(leaves, found, weight_decay > 0) if trains else FROZEN,
                trees.count(shapes),
                trees.num_bytes(shapes),
                sum(leaf.optimizer_bytes for leaf in leaves),
                learning_rate * first.multiplier if trains else None,
                weight_decay if trains and first.is_decayed else None,
            )
        )
    return tuple(groups)


def _group_name(leaves: list[_Leaf], keys: Iterable[tuple[Any, ...]], with_decay: bool) -> str:
    """The label; the folder of the leaves, where only the rate tells it from others; the decay."""
    label, decayed = leaves[0].label, leaves[0].is_decayed
    alike = [key for key in keys if key[0] == label and key[2:] == (decayed,)]
    folder = posixpath.commonpath([leaf.name for leaf in leaves]) if len(alike) > 1 else ""
    words = label if not folder else f"{label} {folder}"
    return f"{words}, not decayed" if with_decay and not decayed else words


def _state_bytes(state: Any, names: Iterable[str]) -> dict[str, int]:
    """Bytes of optimizer state by the parameter whose name ends theirs; counts belong to none."""
    known, sizes = set(names), {}
    for path, leaf in paths.flatten(state).items():
        name = paths.owner(path, known)
        if name is not None:
            sizes[name] = sizes.get(name, 0) + trees.num_bytes(leaf)
    return sizes


def _optimizer(updates: Updates, labels: Any) -> optax.GradientTransformation:
    schedule = optax.constant_schedule(updates.learning_rate)
    return optimizers.make_optimizer(
        updates.optimizer, schedule, labels, weight_decay=updates.weight_decay
    )


def _check_structure(name: str, tree: Any, params: Params) -> None:
    found, expected = set(paths.leaf_names(tree)), set(paths.leaf_names(params))
    if jax.tree.structure(tree) != jax.tree.structure(params):
        odd = sorted(found ^ expected)
        raise UserError(
            f"{name} has {len(found)} leaves, params has {len(expected)}; they differ in"
            f" {', '.join(map(repr, odd[:3])) or 'their nesting'}. Make {name} from the same tree"
            " as params, the added parameters included."
        )


def _shapes(tree: Any) -> Any:
    return jax.eval_shape(lambda leaves: leaves, tree)
