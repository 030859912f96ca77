"""Part of benchmarks/aot.py: the fields of a batch and what a compiled program says of itself.

Imports nothing of jaxtune, of which a commit of long ago may be in the path.
"""

import json
import time
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


def tell(jitted: Any, args: tuple[Any, ...], hlo: str, also: dict[str, Any] | None = None) -> None:
    """Compiles, writes the text of the program, and prints the rest, and more, as JSON."""
    start = time.perf_counter()
    lowered = jitted.lower(*args)
    traced = time.perf_counter()
    program = lowered.compile()
    done = time.perf_counter()
    Path(hlo).write_text(program.as_text())
    memory = program.memory_analysis()
    found = {
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "trace_seconds": traced - start,
        "compile_seconds": done - traced,
    }
    print(json.dumps(found | (also or {})))
