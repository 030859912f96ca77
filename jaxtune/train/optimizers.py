"""How trainable parameters are updated: clipping, one masked chain a group, schedule, multipliers.

Everything here takes the tree of trainable parameters, with None where frozen, so a frozen
parameter has no moment, no decay and no share in the clip norm.
"""

import re
from collections.abc import Hashable
from typing import Any

import jax
import optax

from jaxtune.core import paths
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import STATISTICS

NO_DECAY = r"(?:^|/)(?:bias|scale)$|_(?:ia3_input|ia3_output|dora_magnitude)$"
"""Biases, the scales of normalisation layers and other factors are not decayed."""

SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = ("adamw", "sgd")


def make_schedule(
    name: str, learning_rate: float, num_steps: int, warmup_steps: int
) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or down to 0 at `num_steps` (linear or cosine).

    With w warm-up steps and n steps in all, the rate of step k (from 0) is
    `lr k / w` for k < w, then `lr (n - k) / (n - w)`, `lr (1 + cos(pi (k - w) / (n - w))) / 2`
    or `lr`.

    Args:
      name: one of SCHEDULES.
      learning_rate: the peak.
      num_steps: optimizer steps in all.
      warmup_steps: steps before the peak, at most `num_steps`.

    Raises:
      UserError: an unknown name.
    """
    decay_steps = max(1, num_steps - warmup_steps)
    if name == "linear":
        after = optax.linear_schedule(learning_rate, 0.0, decay_steps)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, decay_steps)
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


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    labels: Any,
    *,
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.9,
    no_decay: str = NO_DECAY,
    multipliers: Any = None,
) -> optax.GradientTransformation:
    """Clipping by the global norm, one masked chain for each (group, decayed or not), the rate.

    Each chain counts its own steps for Adam's bias correction, so a group that joins later starts
    as a fresh one does. The schedule counts the steps of the whole optimizer.

    Args:
      name: `adamw` (decoupled decay) or `sgd` (with momentum; decay is added to the gradient).
      schedule: learning rate by step.
      labels: group names of the trainable leaves, None where frozen, as
        `partition.trainable_labels` gives them.
      weight_decay: for leaves whose name does not match `no_decay`.
      clip_norm: the largest global norm of the gradient of the trainable leaves; None does not
        clip.
      b1: decay of AdamW's first moment.
      b2: decay of AdamW's second moment.
      eps: added to the root of AdamW's second moment.
      momentum: of SGD.
      no_decay: a regex; leaves whose name matches are not decayed.
      multipliers: a tree of float like `labels`, a factor on the learning rate of each leaf; None
        for 1 everywhere.

    Returns:
      An `optax.GradientTransformation` over the trainable tree. AdamW keeps 8 bytes per trainable
      float32 parameter.

    Raises:
      UserError: an unknown name.

    Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2.
    """
    if name not in OPTIMIZERS:
        raise UserError(
            f"config.optimizer.name is {name!r}: expected one of {', '.join(OPTIMIZERS)}."
            f"{nearest(name, OPTIMIZERS)}"
        )

    def chain(group: str) -> optax.GradientTransformation:
        if group == f"plain_{STATISTICS}":  # the step writes them, no gradient does
            return optax.set_to_zero()
        decayed = optax.add_decayed_weights(weight_decay if group.startswith("decayed_") else 0.0)
        if name == "adamw":
            return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), decayed)
        return optax.chain(decayed, optax.trace(momentum))

    names = [
        f"{'decayed' if is_decayed(leaf, no_decay) and group != STATISTICS else 'plain'}_{group}"
        for leaf, group in paths.flatten(labels).items()
    ]
    chains: dict[Hashable, optax.GradientTransformation] = {
        group: chain(group) for group in sorted(set(names))
    }
    chain_labels = jax.tree.unflatten(jax.tree.structure(labels), names)
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    parts += [optax.partition(chains, chain_labels), optax.scale_by_learning_rate(schedule)]
    if multipliers is not None:
        parts += [optax.stateless(lambda updates, _: _multiply(updates, multipliers))]
    return optax.chain(*parts)


def is_decayed(leaf: str, no_decay: str = NO_DECAY) -> bool:
    """Whether weight decay applies to the leaf of this name."""
    return not re.search(no_decay, leaf)


def _multiply(updates: Any, multipliers: Any) -> Any:
    return jax.tree.map(lambda u, factor: u if factor == 1.0 else factor * u, updates, multipliers)
