"""IA3: keys, values and inner activations are scaled by trained factors."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core import paths
from jaxtune.core.types import ApplyFn, Params, PRNGKey
from jaxtune.tuning import injection
from jaxtune.tuning.extended import insert, rebuild
from jaxtune.tuning.selective import HEAD

KEY_VALUE = (r"attention/self/(?:key|value)/kernel$",)
"""The matrices of jaxtune's models whose outputs the paper scales."""

FEED_FORWARD = (r"layer/\d+/output/dense/kernel$",)
"""Those whose inputs it scales."""

_ADDED = r"_ia3_(?:input|output)$"


@dataclasses.dataclass(frozen=True)
class IA3:
    """Trains one factor for each output or input of some matrices, and the head.

    With W [in, out]: `y = (x W + b) * l` with l [out] for `targets`, and `y = (x * l) W + b` with
    l [in] for `feedforward_targets`. The factors start as 1, so the model starts as it was.

    Source: Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
    In-Context Learning, section 3.3.

    Attributes:
      targets: regexes over the names of matrices [in, out] whose outputs are scaled, with the bias
        beside them.
      feedforward_targets: the same for inputs; () for none.
      head: a regex for parameters of the model that are trained as they are; None for none.
    """

    targets: tuple[str, ...] = KEY_VALUE
    feedforward_targets: tuple[str, ...] = FEED_FORWARD
    head: str | None = HEAD

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """Adds `NAME_ia3_output` and `NAME_ia3_input`, ones in float32; nothing is drawn.

        Raises:
          UserError: a target that cannot be.
        """
        del key
        added = {
            f"{name}_ia3_output": jnp.ones(columns, jnp.float32)
            for name, (_, columns) in injection.find_targets(params, self.targets, "IA3").items()
        }
        if self.feedforward_targets:
            found = injection.find_targets(params, self.feedforward_targets, "IA3")
            added |= {
                f"{name}_ia3_input": jnp.ones(rows, jnp.float32)
                for name, (rows, _) in found.items()
            }
        return insert(params, added)

    def labels(self, params: Params) -> Any:
        """`ia3` for the added leaves, `head` for the head, FROZEN for the rest."""
        return injection.label_added(params, _ADDED, "ia3", self.head)

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model with outputs and inputs of the targets scaled."""
        for marker, edit in (
            ("kernel_ia3_output", _scale_output),
            ("kernel_ia3_input", _scale_input),
        ):
            apply_fn = injection.intercept(apply_fn, marker, edit, kind=nn.Dense, fold=_fold)
        return apply_fn

    def merge(self, params: Params) -> Params:
        """The model's own tree with scaled matrices and biases, in float32."""
        names = paths.leaf_names(params)
        return _merge(params, [n for n in names if n.endswith(("_ia3_output", "_ia3_input"))])


def _scale_output(
    module: nn.Module, call: Callable[..., Array], args: tuple[Any, ...], train: bool
) -> Float[Array, "... f"]:
    y = call(*args)
    return y * module.get_variable("params", "kernel_ia3_output").astype(y.dtype)


def _scale_input(
    module: nn.Module, call: Callable[..., Array], args: tuple[Any, ...], train: bool
) -> Float[Array, "... f"]:
    x, *rest = args
    return call(x * module.get_variable("params", "kernel_ia3_input").astype(x.dtype), *rest)


def _fold(params: Params, added: Sequence[str]) -> Params:
    for name in added:
        injection.check_alone(params, re.sub(_ADDED, "", name), _ADDED)
    return _merge(params, added)


def _merge(params: Params, added: Sequence[str]) -> Params:
    """The tree with the named factors merged."""
    flat = paths.flatten(params)
    for name in added:
        factor = flat.pop(name)
        if name.endswith("_ia3_input"):
            matrix = name.removesuffix("_ia3_input")
            flat[matrix] = factor[:, None] * flat[matrix].astype(jnp.float32)
            continue
        matrix = name.removesuffix("_ia3_output")
        flat[matrix] = flat[matrix].astype(jnp.float32) * factor
        bias = "/".join([*matrix.split("/")[:-1], "bias"])
        if bias in flat:
            flat[bias] = flat[bias].astype(jnp.float32) * factor
    return rebuild(params, flat)
