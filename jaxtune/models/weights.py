"""Weight files of a model folder: what tensors they hold, and reading one at a time."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object

_FLOATING = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")


class Weights(NamedTuple):
    """The tensors of a folder's weight files, not yet read.

    Attributes:
      shapes: shape by tensor name, as the file spells it.
      read: gives the tensor of that name, in the file's dtype.
      layout: `torch` (names joined by dots, kernels [out, in]) or `flax` (slashes, [in, out]).
      files: the files, in a stable order.
      dtypes: dtype by tensor name, as the file spells it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    layout: Literal["torch", "flax"]
    files: tuple[Path, ...]
    dtypes: Mapping[str, str]

    def check_floating(self, name: str) -> None:
        """Refuses a tensor that is not plain floating point, such as one that is quantised.

        Raises:
          UserError: names it and its dtype.
        """
        if self.dtypes[name] not in _FLOATING:
            raise UserError(
                f"{self.files[0].parent}: the tensor {name} has the dtype {self.dtypes[name]}, but"
                " expected float32, float16 or bfloat16. Quantised weights mean nothing without"
                " their scales: choose the model as it was before it was quantised."
            )


def open_weights(folder: Path) -> Weights:
    """Opens the weight files of a folder in the transformers layout.

    `model.safetensors` is preferred, then its sharded form with an index, then
    `flax_model.msgpack`.

    Raises:
      UserError: no such file, a damaged one, or only pickled weights.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    flax_file = folder / "flax_model.msgpack"
    if single.exists():
        return open_safetensors((single,))
    if index.exists():
        return open_safetensors(_shards(index))
    if flax_file.exists():
        return _open_msgpack(flax_file)
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    if pickled:
        raise UserError(
            f"{folder} holds only {', '.join(pickled)}, which is a pickle: loading one can run any"
            " code, so jaxtune does not. Convert it to safetensors once, where torch is installed:"
            " AutoModel.from_pretrained(folder).save_pretrained(folder)."
        )
    raise UserError(
        f"{folder} holds no weights: expected model.safetensors, model.safetensors.index.json or"
        f" flax_model.msgpack, found {_listing(folder)}."
    )


def with_file(weights: Weights, file: Path, prefix: str, name: str) -> Weights:
    """The tensors of a folder and those of one more safetensors file, where that is there.

    Args:
      weights: of the folder, in torch's layout; others stay as they are.
      file: one module's alone.
      prefix: what its tensors' names begin with in the file.
      name: what they begin with here.

    Raises:
      UserError: a damaged file.
    """
    if weights.layout != "torch" or not file.is_file():
        return weights
    more = open_safetensors((file,))
    named = {f"{name}.{old.removeprefix(f'{prefix}.')}": old for old in more.shapes}
    return Weights(
        {**weights.shapes, **{new: more.shapes[old] for new, old in named.items()}},
        lambda wanted: more.read(named[wanted]) if wanted in named else weights.read(wanted),
        "torch",
        (*weights.files, file),
        {**weights.dtypes, **{new: more.dtypes[old] for new, old in named.items()}},
    )


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json_object(index, "Fetch it again.").get("weight_map")
    values = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not values or not all(isinstance(name, str) for name in values):
        raise UserError(
            f"{index} is not an index of shards: expected weight_map with the file of each tensor."
            " Fetch it again."
        )
    names = sorted({Path(name).name for name in values})
    files = tuple(index.parent / name for name in names)
    for file in files:
        if not os.path.isfile(file):  # False for a name that no file can have, too
            raise UserError(
                f"{index} names the shard {file.name[:80]}, which is not in the folder."
            )
    return files


def open_safetensors(files: tuple[Path, ...]) -> Weights:
    """Opens safetensors files whose names are already known.

    Raises:
      UserError: a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    homes, sizes = {}, {}
    for file in files:
        try:
            sizes[file] = file.stat().st_size
            handle = safe_open(file, framework="np")
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is damaged or is not a safetensors file: {error}. Fetch it again."
            ) from None
        for name in handle.keys():  # noqa: SIM118 (a handle is not a dict)
            found = handle.get_slice(name)
            shapes[name], dtypes[name] = tuple(found.get_shape()), str(found.get_dtype())
            homes[name] = file, handle

    def read(name: str) -> np.ndarray:
        file, handle = homes[name]
        if not file.exists() or file.stat().st_size != sizes[file]:
            # To read a mapped file beyond its end would end the process by a signal.
            raise UserError(f"{file} was changed while it was read. Start again when it is whole.")
        return handle.get_tensor(name)

    return Weights(shapes, read, "torch", files, dtypes)


def _open_msgpack(file: Path) -> Weights:
    from flax.serialization import msgpack_restore

    try:
        tree: Any = msgpack_restore(file.read_bytes())
        if set(tree) <= {"params", "batch_stats"}:  # models with statistics keep them apart
            tree = paths.unflatten(
                {name: leaf for part in tree.values() for name, leaf in paths.flatten(part).items()}
            )
        flat = paths.flatten(tree)
        shapes = {name: tuple(value.shape) for name, value in flat.items()}
        dtypes = {name: str(value.dtype) for name, value in flat.items()}
    except Exception as error:  # the decoder raises whatever the damaged bytes lead to
        raise UserError(
            f"{file} is damaged or is not a Flax msgpack file: {type(error).__name__}:"
            f" {str(error)[:200]}. Fetch it again."
        ) from None
    return Weights(shapes, lambda name: np.asarray(flat[name]), "flax", (file,), dtypes)


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (
        ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        or "nothing"
    )
