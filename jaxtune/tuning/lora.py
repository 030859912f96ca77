"""LoRA: each target matrix gets a trained low-rank term beside it, and stays frozen itself."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from jaxtune.core import dropout, paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params, PRNGKey
from jaxtune.tuning import injection
from jaxtune.tuning.extended import insert, rebuild
from jaxtune.tuning.selective import HEAD

QUERY_VALUE = (r"attention/self/(?:query|value)/kernel$",)
"""The targets of the paper, in jaxtune's models."""

_ADDED = r"_(?:lora_[ab]|dora_magnitude)$"


@dataclasses.dataclass(frozen=True)
class Lora:
    """Trains a low-rank term for each target matrix, and the head.

    With W [in, out], A [in, r] and B [r, out]: `y = x W + s drop(x) A B + b`, where s is alpha / r,
    or alpha / sqrt(r) with `use_rslora`. With `use_dora` the columns of `W' = W + s A B` have
    trained lengths m [out]: `y = m / |W'| * (x W + s drop(x) A B) + b`, without a gradient through
    |W'|. B starts as 0 and m as |W|, so the model starts as it was.

    The product `W + s A B` is not formed in a step: x goes through A and B beside W. It is where W
    belongs to no Linen Dense, but to an embedding, another module or a plain function.

    Source: Hu et al. 2022, LoRA, equation 3; Kalajdzievski 2023, A Rank Stabilization Scaling
    Factor for Fine-Tuning with LoRA; Liu et al. 2024, DoRA, equations 5 and 11.

    Attributes:
      rank: r, inner dimension of the term.
      alpha: numerator of the scale.
      dropout: rate of dropout on the term's input; by tokens where the model says which these are
        (see `jaxtune.core.dropout`), else by rows.
      targets: regexes over the names of matrices [in, out].
      use_rslora: divide alpha by the root of the rank.
      use_dora: train the length of each column too.
      head: a regex for parameters of the model that are trained as they are; None for none.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = QUERY_VALUE
    use_rslora: bool = False
    use_dora: bool = False
    head: str | None = HEAD

    @property
    def scale(self) -> float:
        """The factor s on the low-rank term."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """Adds `NAME_lora_a`, `NAME_lora_b` and for DoRA `NAME_dora_magnitude`, in float32.

        A is uniform in +-1/sqrt(in), drawn by its name, so that other targets do not change it.

        Raises:
          UserError: a rank, dropout or target that cannot be.
        """
        if not 0 <= self.dropout < 1:
            raise UserError(f"LoRA's dropout is {self.dropout}: expected 0 up to, not with, 1.")
        flat = paths.flatten(params)
        added: dict[str, Any] = {}
        for name, (rows, columns) in injection.find_targets(params, self.targets, "LoRA").items():
            if not 1 <= self.rank <= min(rows, columns):
                raise UserError(
                    f"LoRA's rank is {self.rank}, but {name!r} is {rows} x {columns}: expected 1 to"
                    f" {min(rows, columns)}."
                )
            own = injection.key_of(key, name)
            bound = rows**-0.5
            added[f"{name}_lora_a"] = jax.random.uniform(
                own, (rows, self.rank), jnp.float32, -bound, bound
            )
            added[f"{name}_lora_b"] = jnp.zeros((self.rank, columns), jnp.float32)
            if self.use_dora:
                injection.check_alone(params, name, _ADDED)
                added[f"{name}_dora_magnitude"] = _lengths(flat[name])
        return insert(params, added)

    def labels(self, params: Params) -> Any:
        """`lora` for the added leaves, `head` for the head, FROZEN for the rest."""
        return injection.label_added(params, _ADDED, "lora", self.head)

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model with x sent through A and B beside each target."""
        return injection.intercept(
            apply_fn, "kernel_lora_a", self._beside, kind=nn.Dense, fold=self._fold
        )

    def merge(self, params: Params) -> Params:
        """The model's own tree with `W + s A B`, or DoRA's matrix, for each target, in float32."""
        return self._merge(params, [n for n in paths.leaf_names(params) if n.endswith("_lora_a")])

    def _merge(self, params: Params, added: Sequence[str]) -> Params:
        """The tree with the terms of the named A's merged."""
        flat = paths.flatten(params)
        for name in [name.removesuffix("_lora_a") for name in added]:
            low_rank = jnp.matmul(
                flat.pop(f"{name}_lora_a"), flat.pop(f"{name}_lora_b"), precision="highest"
            )
            merged = flat[name].astype(jnp.float32) + self.scale * low_rank
            if self.use_dora:
                lengths = jax.lax.stop_gradient(_lengths(merged))
                merged = flat.pop(f"{name}_dora_magnitude") / lengths * merged
            flat[name] = merged
        return rebuild(params, flat)

    def _beside(
        self, module: nn.Module, call: Callable[..., Array], args: tuple[Any, ...], train: bool
    ) -> Float[Array, "... f"]:
        """The output of a Dense with the term added."""
        y, (x, *rest) = call(*args), args
        a, b = (module.get_variable("params", f"kernel_lora_{part}") for part in "ab")
        if train and self.dropout:
            x = _dropout(x, self.dropout, module, *rest)
        x, low, up = (value.astype(y.dtype) for value in (x, a, b))
        term = self.scale * ((x @ low) @ up)  # [... in] -> [... r] -> [... out]
        if not self.use_dora:
            return y + term
        own = module.get_variable("params", "kernel").astype(jnp.float32)
        lengths = jax.lax.stop_gradient(_lengths(own + self.scale * (a @ b)))
        ratio = module.get_variable("params", "kernel_dora_magnitude") / lengths
        bias = (
            module.get_variable("params", "bias") if module.has_variable("params", "bias") else 0.0
        )
        return y + ((ratio - 1) * (y - bias) + ratio * term).astype(y.dtype)

    def _fold(self, params: Params, added: Sequence[str]) -> Params:
        if self.dropout:
            raise UserError(
                "LoRA's dropout needs targets that are kernels of Linen Dense layers, but"
                f" {added[0]!r} belongs to none. Set dropout to 0, or choose other targets."
            )
        for name in added:
            injection.check_alone(params, name.removesuffix("_lora_a"), _ADDED)
        return self._merge(params, added)


def _lengths(matrix: Float[Array, "i o"]) -> Float[Array, "o"]:
    """The Euclidean length of each column, in float32."""
    return jnp.linalg.norm(matrix.astype(jnp.float32), axis=0)


def _dropout(
    x: Float[Array, "... f"],
    rate: float,
    module: nn.Module,
    noise_ids: UInt32[Array, "..."] | None = None,
) -> Float[Array, "... f"]:
    if not module.has_rng("dropout"):
        raise UserError("LoRA's dropout needs the model to be applied with rngs={'dropout': key}.")
    if noise_ids is None:
        count = math.prod(x.shape[:-1])
        noise_ids = jnp.arange(count, dtype=jnp.uint32).reshape(x.shape[:-1])
    return dropout.drop_features(x, rate, module.make_rng("dropout"), noise_ids)
