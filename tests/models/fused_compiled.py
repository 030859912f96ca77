"""The kernel and its gradient compiled for a device that need not be here: run by test_fused.py."""

import sys

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from jaxtune.analysis import targets
from jaxtune.core.dropout import Drop
from jaxtune.models.fused import fused_rows, lowering_for
from jaxtune.models.sight import sight_of

CASES = [(48, 32, None), (75, 64, 7), (128, 64, None), (1024, 64, 64)]


def main(name):
    """Compiles packed rows of some lengths, with dropout, and finds two kernels in each program."""
    target = targets.find_target(name)
    place, platform = SingleDeviceSharding(target.devices[0]), target.chip.device.platform
    lowering = lowering_for(target.chip.device)
    for length, features, window in CASES:

        def loss(query, key, value, segments, data, window=window):
            batch = {"segment_ids": segments, "position_ids": segments}
            ids = segments.astype(jnp.uint32)
            drop = Drop(0.1, jax.random.wrap_key_data(data), ids, ids)
            sight = sight_of(batch, False, window)
            y = fused_rows(query, key, value, sight, jnp.bfloat16, drop, lowering)
            return y.astype(jnp.float32).sum()

        tokens = jax.ShapeDtypeStruct((2, length, 4, features), jnp.bfloat16, sharding=place)
        segments = jax.ShapeDtypeStruct((2, length), jnp.int32, sharding=place)
        data = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=place)
        with targets.tracing_for(target):
            traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*(tokens,) * 3, segments, data)
            lowered = traced.lower(lowering_platforms=("tpu" if platform == "tpu" else "cuda",))
        text = lowered.compile().as_text()
        call = "tpu_custom_call" if platform == "tpu" else "__gpu$xla.gpu.triton"
        assert text.count(f'custom_call_target="{call}"') == 2, text


if __name__ == "__main__":
    main(sys.argv[1])
