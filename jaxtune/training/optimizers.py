"""How trainable parameters are updated: clipping, one masked chain a group, schedule, multipliers.

Everything here takes the tree of trainable parameters, with None where frozen, so a frozen
parameter has no moment, no decay and no share in the clip norm.
"""

import dataclasses
import re
from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import optax

from jaxtune.core import paths
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import STATISTICS
from jaxtune.tuning import partition

SCHEDULES = ("linear", "cosine", "constant")


def make_schedule(
    name: str, learning_rate: float, num_steps: int, warmup_steps: int, final_fraction: float = 0.0
) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or down to its end at `num_steps` (linear or cosine).

    With w warm-up steps and n steps in all, the rate of step k (from 0) is `lr k / w` for k < w,
    then `lr`, or `lr (f + (1 - f) s)` with the final fraction f and s = `(n - k) / (n - w)` or
    s = `(1 + cos(pi (k - w) / (n - w))) / 2`.

    Args:
      name: one of SCHEDULES.
      learning_rate: the peak.
      num_steps: optimizer steps in all.
      warmup_steps: steps before the peak, at most `num_steps`.
      final_fraction: the rate at the end, as a share of the peak.

    Raises:
      UserError: an unknown name.
    """
    decay_steps = max(1, num_steps - warmup_steps)
    if name == "linear":
        after = optax.linear_schedule(learning_rate, final_fraction * learning_rate, decay_steps)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, decay_steps, final_fraction)
    elif name == "constant":
        after = optax.constant_schedule(learning_rate)
    else:
        raise UserError(
            f"config.optimizer.schedule is {name!r}: expected one of {', '.join(SCHEDULES)}."
            f"{nearest(name, SCHEDULES)}"
        )
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam; decay is added to the scaled gradient. It keeps 8 bytes for each float32 parameter.

    Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2.

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


@dataclasses.dataclass(frozen=True)
class SGD:
    """Gradient descent with momentum; decay is added to the gradient."""

    momentum: float = 0.9


OPTIMIZERS: Mapping[str, type[AdamW] | type[SGD]] = MappingProxyType({"adamw": AdamW, "sgd": SGD})

Scaler = AdamW | SGD | optax.GradientTransformation
"""What turns gradients into steps before the learning rate, as each of `optax.scale_by_*` does."""


def named(name: str, fields: Mapping[str, Any] = MappingProxyType({})) -> AdamW | SGD:
    """The optimizer of this name, with those of the fields that it has.

    Raises:
      UserError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"config.optimizer.name is {name!r}: expected one of {', '.join(OPTIMIZERS)}."
            f"{nearest(name, OPTIMIZERS)}"
        )
    own = {field.name for field in dataclasses.fields(OPTIMIZERS[name])}
    return OPTIMIZERS[name](**{key: value for key, value in fields.items() if key in own})


_FACTORS = r"(?:^|/)(?:bias|scale)$|_(?:ia3_input|ia3_output|dora_magnitude)$"
_OF_NORM = r"(?i)(?:^|/)(?:\w*norm(?:[_\d]\w*)?|[lb]n(?:_?\w)?)(?:/\w+)?$"
_VECTORS = r"(?:^|/)(?:weight|bias_?\d+|[bg](?:_?\w{1,3})?|beta|gamma|offset|\d+)$"
_BOX = r"/(?:raw_)?value$"  # what flax.nnx adds to the name of a variable


def is_decayed(name: str, leaf: Any) -> bool:
    """Whether weight decay applies to a leaf: not to biases, normalisation and other factors.

    They are told by name: `bias`, `scale`, the factors of IA3 and DoRA, and what is called a norm,
    or held by a module that is (`norm1/weight`, `ln_f/g`). What is called `weight`, `b`, `b1`, `g`,
    `beta`, `gamma` or `offset`, or has a number for a name in a list, is one where it is a vector.

    Args:
      name: of the leaf.
      leaf: an array, or its shape.
    """
    name = re.sub(_BOX, "", name)
    if re.search(_FACTORS, name) or re.search(_OF_NORM, name):
        return False
    return leaf.ndim > 1 or not re.search(_VECTORS, name)


def make_optimizer(
    scaler: str | Scaler,
    schedule: optax.ScalarOrSchedule,
    labels: Any,
    *,
    weight_decay: float = 0.01,
    clip_norm: float | optax.GradientTransformation | None = 1.0,
    multipliers: Any = None,
    decays: Callable[[str, Any], bool] = is_decayed,
) -> optax.GradientTransformationExtraArgs:
    """Clipping by the global norm, one masked chain for each (group, decayed or not), the rate.

    Each chain counts its own steps for Adam's bias correction, so a group that joins later starts
    as a fresh one does. The schedule counts the steps of the whole optimizer.

    Args:
      scaler: `adamw`, `sgd`, one of these with other constants, or a transformation of optax that
        gives ascents without a rate, such as `optax.scale_by_lion()`; decay is added after it.
      schedule: learning rate by step.
      labels: one for each leaf, as `partition.label` gives them.
      weight_decay: for the leaves that `decays` names.
      clip_norm: the largest global norm of the trainable leaves' gradient, or what clips by it;
        None does not clip.
      multipliers: factors on the rate, a tree of float like the trainable parameters; None for 1.
      decays: (name, leaf) -> whether weight decay applies to it.

    Returns:
      A transformation of the trainable tree, whose state is of its leaves alone.

    Raises:
      UserError: an unknown name, or a scaler that is none.
    """
    scaler = _checked(scaler)
    trained = partition.trainable_labels(labels)

    def grouped(tree: Any) -> optax.GradientTransformationExtraArgs:
        return _by_group(scaler, trained, tree, weight_decay, decays)

    groups = optax.GradientTransformationExtraArgs(
        lambda params: grouped(params).init(params),
        lambda updates, *state, **extra: grouped(updates).update(updates, *state, **extra),
    )
    if isinstance(clip_norm, int | float):
        clip_norm = optax.clip_by_global_norm(clip_norm)
    parts = [] if clip_norm is None else [clip_norm]
    parts += [groups, optax.scale_by_learning_rate(schedule)]
    if multipliers is not None:
        parts += [optax.stateless(lambda updates, _: _multiply(updates, multipliers))]
    return optax.chain(*parts)


def _checked(scaler: Any) -> Scaler:
    if isinstance(scaler, str):
        return named(scaler)
    if not isinstance(scaler, Scaler):
        raise UserError(
            f"the optimizer is {scaler!r}: expected a name ({', '.join(OPTIMIZERS)}) or a"
            " transformation without a learning rate, such as optax.scale_by_lion()."
        )
    return scaler


def _by_group(
    scaler: Scaler,
    labels: Any,
    tree: Any,
    weight_decay: float,
    decays: Callable[[str, Any], bool],
) -> optax.GradientTransformationExtraArgs:
    """One masked chain for each (group, decayed or not) of a tree with labels for its leaves."""
    if jax.tree.structure(tree) != jax.tree.structure(labels):
        raise UserError(
            f"the optimizer was made for {len(jax.tree.leaves(labels))} trained leaves, and is"
            f" given {len(jax.tree.leaves(tree))}, or in another nesting: expected the first half"
            " of partition.partition(params, labels)."
        )
    names = [
        f"{'decayed' if group != STATISTICS and decays(name, leaf) else 'plain'}_{group}"
        for (name, leaf), group in zip(
            paths.flatten(tree).items(), jax.tree.leaves(labels), strict=True
        )
    ]
    chains: dict[Hashable, optax.GradientTransformation] = {
        name: _chain(scaler, weight_decay if name.startswith("decayed_") else 0.0)
        for name in sorted(set(names))
    }
    if f"plain_{STATISTICS}" in chains:  # the step writes them, no gradient does
        chains[f"plain_{STATISTICS}"] = optax.set_to_zero()
    chosen = jax.tree.unflatten(jax.tree.structure(labels), names)
    # A function, since optax calls a tree that can be called, such as an Equinox module of labels.
    return optax.partition(chains, lambda _: chosen)


def _chain(scaler: Scaler, weight_decay: float) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(weight_decay)
    match scaler:
        case AdamW(b1, b2, eps):
            return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decay)
        case SGD(momentum):
            return optax.chain(decay, optax.trace(momentum))
        case transformation:
            return optax.chain(transformation, decay)


def _multiply(updates: Any, multipliers: Any) -> Any:
    return jax.tree.map(lambda u, factor: u if factor == 1.0 else factor * u, updates, multipliers)
