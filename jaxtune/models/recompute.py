"""Gradient checkpointing: what a layer computes is computed again in the backward pass, not kept.

Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost.
"""

from typing import Any

import flax.linen as nn
import jax

from jaxtune.core import paths
from jaxtune.core.types import ApplyFn, Array, Batch, Params, PRNGKey, WithStatistics
from jaxtune.models.registry import make_apply
from jaxtune.models.trunk import num_layers
from jaxtune.parallel.collectives import leaving_explicit_axes


def make_recomputing_apply(module: nn.Module) -> ApplyFn:
    """As `registry.make_apply`, the numbers too, with less memory and one more forward pass.

    Of each layer only the input lives until the backward pass.

    Args:
      module: a `Model`, which runs in parts; no dropout of it is part of two of them.
    """
    plain = make_apply(module)

    def run(params: Params, batch: Batch, key: PRNGKey | None) -> tuple[Array, Params]:
        rngs = None if key is None else {"dropout": key}
        statistics: dict[str, Any] = {}

        def part(method: str, *args: Any) -> tuple[Any, Any]:
            # The parameters are not arguments: adapters know them by their identity.
            return module.apply(
                {"params": params}, *args, True, rngs=rngs, mutable=["statistics"], method=method
            )

        def keep(outputs: tuple[Any, Any]) -> Any:
            x, sown = outputs
            statistics.update(paths.flatten(sown.get("statistics", {})))
            return x

        x = keep(part("embed", batch))
        count = num_layers(module)
        for i in range(count - 1):
            layer = jax.checkpoint(lambda x, i=i: part("run_layers", x, batch, i, i + 1))
            x = keep(layer(x))
        # The last layer is one with the head, which may read a few tokens of it alone.
        last = jax.checkpoint(lambda x: part("suffix", x, batch, max(count - 1, 0)))
        outputs = keep(last(x))
        return outputs, paths.unflatten(statistics)

    def apply_fn(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        if not train:
            return plain(params, batch, key=key, train=False)
        outputs, statistics = leaving_explicit_axes(run)(params, batch, key)
        return WithStatistics(outputs, statistics) if statistics else outputs

    return apply_fn
