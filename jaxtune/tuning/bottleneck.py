"""Bottleneck adapters: small trained networks after the halves of a layer."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params, PRNGKey
from jaxtune.tuning import injection
from jaxtune.tuning.extended import insert
from jaxtune.tuning.selective import HEAD

PLACEMENTS = {
    "houlsby": (r"layer/\d+/(?:attention/)?output/dense/kernel$",),
    "pfeiffer": (r"layer/\d+/output/dense/kernel$",),
}
"""The matrices of jaxtune's models after which an adapter stands."""

_ADDED = r"(?:^|/)adapter/(?:down|up)/(?:kernel|bias)$"


@dataclasses.dataclass(frozen=True)
class BottleneckAdapter:
    """Trains a network with one narrow inner layer after each target matrix, and the head.

    With y = x W + b, the target's output of d features, and m the inner size:
    `y + relu(y D + d_0) U + u_0`, where D is [d, m] and U is [m, d]. U and u_0 start as 0, so the
    model starts as it was. What follows in the layer (dropout, the residual, LayerNorm) stays.

    The network is no linear map, so nothing can be merged into W; a trained model is exported as
    the base's name and what was trained.

    Source: Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP, section 2.1;
    Pfeiffer et al. 2021, AdapterFusion, for the place after the feed-forward block alone.

    Attributes:
      placement: `houlsby` (after attention and after the feed-forward block) or `pfeiffer` (after
        the feed-forward block), in jaxtune's models.
      bottleneck_size: m.
      targets: regexes over the names of matrices [in, d] of Linen modules, instead of `placement`.
      head: a regex for parameters of the model that are trained as they are; None for none.
    """

    mergeable: ClassVar[bool] = False

    placement: Literal["houlsby", "pfeiffer"] = "pfeiffer"
    bottleneck_size: int = 64
    targets: tuple[str, ...] = ()
    head: str | None = HEAD

    def extend(self, params: Params, key: PRNGKey) -> Params:
        """Adds `adapter/down` and `adapter/up` beside each target, in float32.

        D is uniform in +-1/sqrt(d), drawn by its name.

        Raises:
          UserError: a placement, size or target that cannot be.
        """
        if self.placement not in PLACEMENTS:
            raise UserError(
                f"the adapters' placement is {self.placement!r}: expected one of"
                f" {', '.join(PLACEMENTS)}."
            )
        if self.bottleneck_size < 1:
            raise UserError(
                f"the adapters' bottleneck_size is {self.bottleneck_size}: expected at least 1."
            )
        targets = self.targets or PLACEMENTS[self.placement]
        added: dict[str, Any] = {}
        for name, (_, width) in injection.find_targets(params, targets, "the adapter").items():
            place = "/".join([*name.split("/")[:-1], "adapter"])
            own, bound = injection.key_of(key, place), width**-0.5
            shape = (width, self.bottleneck_size)
            added[f"{place}/down/kernel"] = jax.random.uniform(
                own, shape, jnp.float32, -bound, bound
            )
            added[f"{place}/down/bias"] = jnp.zeros(shape[1], jnp.float32)
            added[f"{place}/up/kernel"] = jnp.zeros(shape[::-1], jnp.float32)
            added[f"{place}/up/bias"] = jnp.zeros(width, jnp.float32)
        return insert(params, added)

    def labels(self, params: Params) -> Any:
        """`adapter` for the added leaves, `head` for the head, FROZEN for the rest."""
        return injection.label_added(params, _ADDED, "adapter", self.head)

    def adapt(self, apply_fn: ApplyFn) -> ApplyFn:
        """The model with the adapters after their targets."""
        return injection.intercept(apply_fn, "adapter", _after)

    def merge(self, params: Params) -> Params:
        """Refuses: there is no such tree."""
        raise UserError(
            "bottleneck adapters cannot be merged into the model: they are not linear. Export the"
            " base's name and the trained parameters instead."
        )


def _after(
    module: nn.Module, call: Callable[..., Array], args: tuple[Any, ...], train: bool
) -> Float[Array, "... d"]:
    """The output of a module with the adapter that it holds on top."""
    y = call(*args)
    held: Any = module.get_variable("params", "adapter")
    down, up = jax.tree.map(lambda leaf: leaf.astype(y.dtype), (held["down"], held["up"]))
    inner = jax.nn.relu(y @ down["kernel"] + down["bias"])  # [... d] -> [... m]
    return y + inner @ up["kernel"] + up["bias"]  # [... m] -> [... d]
