"""Prefix tuning: trained keys and values that every token may attend to."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core import dropout
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params, PRNGKey
from jaxtune.models.sight import Sight
from jaxtune.tuning import injection
from jaxtune.tuning.extended import insert
from jaxtune.tuning.selective import HEAD

ATTENTION = (r"attention/self/key/kernel$",)
"""The key projections of jaxtune's models."""

_ADDED = r"(?:^|/)prefix/(?:key|value)$"
_NO_EXAMPLE = -1  # which the prefix's tokens are of


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Trains p keys and p values for each attention, put before those of the text, and the head.

    `softmax(q [P_k; k]^T / sqrt(d_h) + [0; bias]) [P_v; v]` with P_k and P_v [p, d] split into
    heads. Positions and masks of the text stay as they are. Other than with the strategies that
    start as the identity, the model's outputs change as soon as the prefix is there.

    An attention module must have the method `attend` of `jaxtune.models.attention.SelfAttention`.
    Dropout of what is attended to knows the prefix by ids of its own, the same in every row.

    Source: Li and Liang 2021, Prefix-Tuning, section 4.2; Liu et al. 2022, P-Tuning v2, which
    trains the prefix directly in every layer of an encoder, as is done here.

    Attributes:
      prefix_length: p, in tokens.
      targets: regexes over the names of key projections [in, d], or of matrices [d, 3 d] that give
        queries, keys and values; the module that holds them is the attention.
      head: a regex for parameters of the model that are trained as they are; None for none.
    """

    mergeable: ClassVar[bool] = False

    prefix_length: int = 16
    targets: tuple[str, ...] = ATTENTION
    head: str | None = HEAD

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """Adds `prefix/key` and `prefix/value` to each attention, from N(0, 0.02^2) in float32.

        Raises:
          UserError: a length or target that cannot be.
        """
        if self.prefix_length < 1:
            raise UserError(f"prefix_length is {self.prefix_length}: expected at least 1.")
        added: dict[str, Any] = {}
        for name, shape in injection.find_targets(params, self.targets, "the prefix").items():
            # One matrix may give queries, keys and values side by side.
            width = shape[1] // 3 if shape[1] == 3 * shape[0] else shape[1]
            attention = name.split("/")[:-2]  # .../key/kernel
            for part in ("key", "value"):
                leaf = "/".join([*attention, "prefix", part])
                own = injection.key_of(key, leaf)
                shape = (self.prefix_length, width)
                added[leaf] = 0.02 * jax.random.normal(own, shape, jnp.float32)
        return insert(params, added)

    def labels(self, params: Params) -> Any:
        """`prefix` for the added leaves, `head` for the head, FROZEN for the rest."""
        return injection.label_added(params, _ADDED, "prefix", self.head)

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model with the prefix before the keys and values of each target."""
        return injection.intercept(apply_fn, "prefix", _before, method="attend")

    def merge(self, params: Params) -> Params:
        """Refuses: there is no such tree."""
        raise UserError(
            "a prefix cannot be merged into the model: it adds keys and values. Export the base's"
            " name and the trained parameters instead."
        )


def _before(
    module: nn.Module, call: Callable[..., Array], args: tuple[Any, ...], train: bool
) -> Array:
    """The attention with the prefix that its module holds before its keys and values."""
    query, key, value, bias, asking, noise_ids = args
    held: Any = module.get_variable("params", "prefix")

    def join(prefix: Float[Array, "p d"], text: Float[Array, "b s h k"]) -> Float[Array, "b q h k"]:
        heads = prefix.reshape(-1, *text.shape[2:]).astype(text.dtype)  # [p d] -> [p h k]
        shape = (text.shape[0], *heads.shape)
        return jnp.concatenate([jnp.broadcast_to(heads, shape), text], axis=1)  # [b p+s h k]

    length = held["key"].shape[0]
    if isinstance(bias, Sight):
        bias = bias.behind(length)
    else:
        bias = jnp.broadcast_to(bias, (*bias.shape[:-1], key.shape[1]))
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (length, 0)))  # no bias on the prefix
    if noise_ids is not None:
        own = dropout.noise_ids_of(jnp.full(length, _NO_EXAMPLE), jnp.arange(length))
        own = jnp.broadcast_to(own, (noise_ids.shape[0], length))
        noise_ids = jnp.concatenate([own, noise_ids], axis=1)  # [b p+s]
    return call(query, join(held["key"], key), join(held["value"], value), bias, asking, noise_ids)
