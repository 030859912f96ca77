"""How trainable parameters are updated: schedule, clipping, and one masked chain per group.

Everything here takes the tree of trainable parameters, with None where frozen, so a frozen
parameter has no moment, no decay and no share in the clip norm.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import optax

from jaxtune import paths
from jaxtune.errors import UserError, nearest

NO_DECAY = r"(?:^|/)(?:bias|scale)$"
"""Biases and the scales of normalisation layers are not decayed."""

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
    rate_scale: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """Clipping by the global norm, then one masked chain for each (group, decayed or not).

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
      rate_scale: a factor on the learning rate by group; 1 where absent.

    Returns:
      An `optax.GradientTransformation` over the trainable tree. AdamW keeps 8 bytes per trainable
      float32 parameter.

    Raises:
      UserError: an unknown name or group.

    Source: Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization, algorithm 2.
    """

    def chain(scale: float, decay: float) -> optax.GradientTransformation:
        def rate(step: Any) -> Any:
            return scale * schedule(step)

        if name == "adamw":
            return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay)
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum=momentum))

    if name not in OPTIMIZERS:
        raise UserError(
            f"config.optimizer.name is {name!r}: expected one of {', '.join(OPTIMIZERS)}."
            f"{nearest(name, OPTIMIZERS)}"
        )
    leaves = zip(paths.leaf_names(labels), jax.tree.leaves(labels), strict=True)
    keys = [(group, not re.search(no_decay, leaf)) for leaf, group in leaves]
    scales = rate_scale or {}
    groups = {group for group, _ in keys}
    for group in scales:
        if group not in groups:
            raise UserError(
                f"rate_scale names the group {group!r}, but the labels have {', '.join(groups)}."
                f"{nearest(group, groups)}"
            )
    chains: dict[Hashable, optax.GradientTransformation] = {
        _chain_name(key): chain(scales.get(key[0], 1.0), weight_decay if key[1] else 0.0)
        for key in sorted(set(keys))
    }
    chain_labels = jax.tree.unflatten(jax.tree.structure(labels), [_chain_name(k) for k in keys])
    masked = optax.partition(chains, chain_labels)
    return masked if clip_norm is None else optax.chain(_clip(clip_norm), masked)


def _chain_name(key: tuple[str, bool]) -> str:
    group, decayed = key
    return f"{'decayed' if decayed else 'plain'}_{group}"


def _clip(clip_norm: float) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(clip_norm)
