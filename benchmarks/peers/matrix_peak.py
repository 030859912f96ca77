"""The rate of products of square matrices that a framework reaches, in operations a second.

    python benchmarks/peers/matrix_peak.py jax float32,bfloat16 2048

Prints one line of JSON for each dtype, of the median over 15 products; each has 2 n^3 operations.
"""
# pyright: reportMissingImports=false

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

WARM, TIMED = 3, 15


def jax_product(dtype: str, size: int) -> tuple[Callable[[], Any], str]:
    """A product on JAX's first device, awaited, and the name of the device."""
    import jax
    import jax.numpy as jnp

    a, b = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(a, b).block_until_ready(), jax.devices()[0].device_kind


def torch_product(dtype: str, size: int) -> tuple[Callable[[], Any], str]:
    """A product on torch's GPU if it has one, else on the CPU, and the name of the device."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(2, size, size, device=device).to(getattr(torch, dtype))

    def product() -> None:
        torch.matmul(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return product, torch.cuda.get_device_name() if device == "cuda" else "cpu"


def main() -> None:
    """Measures."""
    framework, dtypes, size = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
    for dtype in dtypes:
        product, device = {"jax": jax_product, "torch": torch_product}[framework](dtype, size)
        times = []
        for _ in range(WARM + TIMED):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        rate = 2 * size**3 / statistics.median(times[WARM:])
        found = {"framework": framework, "dtype": dtype, "device": device, "rate": rate}
        print(json.dumps(found))


if __name__ == "__main__":
    main()
