"""A model as a StableHLO program that JAX alone runs, on a CPU, a GPU or a TPU.

The file is an .npz of NumPy: the program, which `jax.export.deserialize` reads, and the parameters
that it takes. They lie beside it and not in it so that each size of batch that it is compiled for
does not hold a copy of them.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array

from jaxtune.core import paths
from jaxtune.core.types import ApplyFn, Batch, Params
from jaxtune.export.signature import Signature

PROGRAM = "stablehlo"
"""The array of the file that holds the program; each other is a parameter, by its leaf name."""

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(file: Path, apply_fn: ApplyFn, params: Params, signature: Signature) -> None:
    """Writes the program `(parameters by name, **inputs) -> outputs by name` and its parameters.

    Args:
      file: made anew.
      apply_fn: the model.
      params: all its parameters; written as float32.
      signature: of the model.
    """
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in paths.flatten(params).items()}

    def forward(flat: dict[str, Array], **inputs: Array) -> dict[str, Array]:
        return named_outputs(
            signature,
            apply_fn(paths.unflatten(flat), batch_of(inputs), key=None, train=False),
        )

    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}
    exported = export.export(jax.jit(forward), platforms=PLATFORMS)(shapes, **_any_size(signature))
    program = np.frombuffer(exported.serialize(), np.uint8)
    with file.open("wb") as stream:
        arrays: dict[str, Any] = {PROGRAM: program, **flat}
        np.savez(stream, **arrays)


def batch_of(inputs: dict[str, Any]) -> Batch:
    """The batch that jaxtune's models read, of inputs in the layout of transformers."""
    if "pixel_values" not in inputs:
        return inputs
    return inputs | {"pixel_values": inputs["pixel_values"].transpose(0, 2, 3, 1)}  # [b h w c]


def named_outputs(signature: Signature, outputs: Any) -> dict[str, Any]:
    """A model's outputs by name; those of a head of spans, [b t 2], in two parts [b t]."""
    if len(signature.outputs) == 1:
        return dict.fromkeys(signature.outputs, outputs)
    return {name: outputs[..., i] for i, name in enumerate(signature.outputs)}


def _any_size(signature: Signature) -> dict[str, jax.ShapeDtypeStruct]:
    """The inputs with symbols for the sizes that may be any."""
    names = {size for axes in signature.inputs.values() for size in axes if isinstance(size, str)}
    ordered = sorted(names)
    symbols: dict[Any, Any] = dict(
        zip(ordered, export.symbolic_shape(", ".join(ordered)), strict=True)
    )
    dtype = jnp.float32 if signature.is_image else jnp.int32
    return {
        name: jax.ShapeDtypeStruct(tuple(symbols.get(size, size) for size in axes), dtype)
        for name, axes in signature.inputs.items()
    }
