"""The kernel on two devices that share the heads: run by test_fused.py."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_fused import LOWERINGS, make_case

from jaxtune.models.fused import fused_rows

OVER_HEADS = PartitionSpec(None, None, "tensor")


def main():
    """Rows shared out by `shard_map` over `data`, as in a step, and left to the compiler."""
    parts, sight, drop = make_case("packed", "causal", 0.3, 32)
    attend = partial(fused_rows, lowering=LOWERINGS["mosaic"], blocks=(16, 16))

    def run(*parts):
        y, back = jax.vjp(lambda *parts: attend(*parts, sight, jnp.float32, drop), *parts[:3])
        return (y, *back(parts[3]))

    wanted = jax.jit(run)(*parts)
    mesh = jax.make_mesh((1, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    heads, rows = NamedSharding(mesh, OVER_HEADS), PartitionSpec("data")
    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={"data"}, check_vma=False
    )
    for one in (run, mapped):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            found = jax.jit(one)(*jax.device_put(parts, heads))
        for x, y in zip(found, wanted, strict=True):
            assert x.sharding.is_equivalent_to(heads, 4), x.sharding
            np.testing.assert_allclose(x, y, atol=1e-6)


if __name__ == "__main__":
    main()
