"""Part of benchmarks/aot.py: the fields of a batch and what a compiled program says of itself.

Imports nothing of jaxtune, of which a commit of long ago may be in the path.
"""

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

VALUES_OF_EXAMPLES = ("first_tokens", "last_tokens", "example_ids")


def batch_shapes(job: dict[str, Any], size: tuple[int, ...] | None) -> dict[str, Any]:
    """The fields that a run's batches have, (shape, dtype) by name.

    Args:
      job: see `aot.Job`.
      size: height, width and channels of an image; None of texts.
    """
    rows, tokens = job["rows"], (job["rows"], job["length"])
    examples = (rows, job["slots"]) if job["slots"] and size is None else (rows,)
    scored = examples if not job["task"].endswith("_lm") else tokens
    found = {name: (examples, jnp.int32) for name in ("example_ids",)}
    found |= {"weight": (scored, jnp.float32), "labels": (scored, jnp.int32)}
    if size is not None:
        return found | {"pixel_values": ((rows, *size), jnp.float32)}
    names = ["input_ids", "attention_mask", "token_type_ids"]
    if job["slots"]:
        names += ["position_ids", "segment_ids"]
        found |= {name: (examples, jnp.int32) for name in VALUES_OF_EXAMPLES}
    return found | {name: (tokens, jnp.int32) for name in names}


def placed(tree: Any, places: Any) -> Any:
    """Shapes that know where they lie."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
    )


def tell(
    jitted: Any,
    args: tuple[Any, ...],
    job: dict[str, Any],
    also: dict[str, Any] | None = None,
    tracing: Callable[[], Any] = contextlib.nullcontext,
) -> None:
    """Compiles for each length, writes the text of the first program, and prints JSON.

    Args:
      jitted: the step.
      args: its arguments, the batch of the job's first length last.
      job: see `aot.Job`.
      also: what is printed besides.
      tracing: makes a context for a thread to trace and compile in.
    """

    def compiled(length: int) -> tuple[Any, float, float]:
        own = *args[:-1], {name: _cut(x, job["length"], length) for name, x in args[-1].items()}
        start = time.perf_counter()
        with tracing():
            lowered = jitted.lower(*own)
            traced = time.perf_counter()
            program = lowered.compile()
        return program, traced - start, time.perf_counter() - traced

    start = time.perf_counter()
    with ThreadPoolExecutor(job["threads"]) as pool:
        (program, *seconds), *_ = pool.map(compiled, (job["length"], *job["others"]))
    total = time.perf_counter() - start
    Path(job["hlo"]).write_text(program.as_text())
    memory = program.memory_analysis()
    found = {
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "trace_seconds": seconds[0],
        "compile_seconds": seconds[1],
        "all_seconds": total,
    }
    print(json.dumps(found | (also or {})))


def _cut(x: Any, was: int, length: int) -> Any:
    """A field of a batch for rows of another length."""
    if len(x.shape) != 2 or x.shape[1] != was:
        return x
    return jax.ShapeDtypeStruct((x.shape[0], length), x.dtype, sharding=x.sharding)
