"""LoRA in the files of the `peft` package: `adapter_config.json`, `adapter_model.safetensors`.

A target `.../query/kernel` [in, out] with A [in, r], B [r, out] and, for DoRA, lengths m [out] is

    base_model.model....query.lora_A.weight            [r, in]
    base_model.model....query.lora_B.weight            [out, r]
    base_model.model....query.lora_magnitude_vector    [out]

and a module that is trained as it is, such as the head, is there under its own names after the same
prefix. Neither torch nor peft is needed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError, nearest
from jaxtune.core.types import Params
from jaxtune.export import model_folder
from jaxtune.export.peft_config import CONFIG, is_target, read_config
from jaxtune.models import convert
from jaxtune.models.weights import Weights, open_safetensors
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.partition import FROZEN

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

_PARTS = {
    "lora_a": ".lora_A.weight",
    "lora_b": ".lora_B.weight",
    "dora_magnitude": ".lora_magnitude_vector",
}
_ADDED = tuple(f"_{part}" for part in _PARTS)
HEAD_OF_TASK_TYPE = {
    "SEQ_CLS": "sequence",
    "TOKEN_CLS": "token",
    "QUESTION_ANS": "span",
    "CAUSAL_LM": "causal_lm",
}
"""The head of a model by peft's `task_type`; a masked language model has none there."""

# peft saves these of every classifier of texts or tokens.
_HEADS = re.compile(r"(?:^|\.)(classifier|score)(?=\.|$)")


class Base(NamedTuple):
    """The base model in peft's config.

    Attributes:
      name: a folder or hub id.
      head: of the model, which peft's `task_type` follows from.
      revision: of a hub id.
    """

    name: str
    head: str = "sequence"
    revision: str | None = None


def save_lora(
    folder: Path,
    lora: Lora,
    params: Params,
    labels: Any,
    base: Base,
    *,
    tokenizer: Any = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes what was trained, for `PeftModel.from_pretrained(base, folder)`.

    On torch the base must have been loaded with as many classes: peft's config does not say it. The
    same parameters give the same bytes, and the folder appears whole or not at all.

    Args:
      folder: made anew.
      lora: the strategy.
      params: the extended tree.
      labels: of the extended tree. What is trained beside LoRA's own leaves becomes
        `modules_to_save`, whole modules with their frozen leaves; the head always is one.
      base: what it was trained on.
      tokenizer: None for none.
      card: the content of `jaxtune.json`, where the class names are; None for none.

    Raises:
      UserError: something trained has no place in these files.
    """
    flat = paths.flatten(params)
    kernels = [name.removesuffix("_lora_a") for name in flat if name.endswith("_lora_a")]
    saved = _modules_to_save(flat, paths.flatten(labels), kernels)
    tensors = {}
    for name, value in flat.items():
        if name.endswith(_ADDED) or _module(name) in saved:
            array = np.asarray(jax.device_get(value), np.float32)
            array = array.T if _is_transposed(name) else array
            tensors[_tensor_name(name)] = np.ascontiguousarray(array)
    config = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": any(map(convert.is_conv1d, kernels)),
        "inference_mode": True,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": sorted({_whole_head(module) for module in saved}),
        "peft_type": "LORA",
        "r": lora.rank,
        "revision": base.revision,
        "target_modules": sorted(map(_module, kernels)),
        "task_type": next((k for k, v in HEAD_OF_TASK_TYPE.items() if v == base.head), None),
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
    }
    model_folder.write_folder(
        folder, (WEIGHTS, tensors), (CONFIG, config), tokenizer, dict(card or {})
    )


def load_lora(folder: Path, params: Params) -> tuple[Lora, Params]:
    """Reads a LoRA that peft or `save_lora` wrote.

    Args:
      folder: with `adapter_config.json` and `adapter_model.safetensors`.
      params: of the base model, with a head of the adapter's size.

    Returns:
      (strategy, extended tree). The strategy's `targets` match exactly the matrices in the file,
      its `head` the modules that the file replaces; None if there are none.

    Raises:
      UserError: another kind of adapter, a field that jaxtune does not have, or a tensor that is
        missing, left over, or of another shape.
    """
    config, weights, flat = read_config(folder), open_adapter(folder), paths.flatten(params)
    names = _leaf_names(folder, weights, flat)
    kernels = sorted(name.removesuffix("_lora_a") for name in names if name.endswith("_lora_a"))
    if not kernels:
        raise UserError(f"{folder / WEIGHTS} holds no lora_A: expected one for each target.")
    heads = sorted({name.rpartition("/")[0] for name in names if name in flat})
    lora = Lora(
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=config.get("lora_dropout", 0.0),
        targets=tuple(f"^{re.escape(name)}$" for name in kernels),
        use_rslora=bool(config.get("use_rslora")),
        use_dora=bool(config.get("use_dora")),
        head=f"^(?:{'|'.join(map(re.escape, heads))})/" if heads else None,
    )
    shapes = paths.flatten(jax.eval_shape(lora.extend, params, jax.random.key(0)))
    wanted = {*shapes} - {*flat} | {*_expected(config, flat, {*names})}
    _check_tensors(folder, weights, names, {n: leaf.shape for n, leaf in shapes.items()}, wanted)
    for name, key in names.items():
        value = np.asarray(weights.read(key), np.float32)
        flat[name] = jnp.asarray(value.T if _is_transposed(name) else value)
    return lora, paths.unflatten(flat)


def open_adapter(folder: Path) -> Weights:
    """The tensors of an adapter folder, not yet read.

    Raises:
      UserError: there is no safetensors file, or a damaged one.
    """
    file = folder / WEIGHTS
    if file.exists():
        return open_safetensors((file,))
    if (folder / "adapter_model.bin").exists():
        raise UserError(
            f"{folder} holds its weights only as adapter_model.bin, which is a pickle: loading one"
            " can run any code, so jaxtune does not. Load it with peft once, and save it with"
            " save_pretrained(folder), which writes safetensors."
        )
    raise UserError(f"{folder} has no {WEIGHTS}, which belongs to its {CONFIG}.")


def _leaf_names(folder: Path, weights: Weights, flat: Mapping[str, Any]) -> dict[str, str]:
    """The tensor for each leaf of the extended tree that the file holds."""
    kernels = [name for name in flat if name.endswith("/kernel")]
    leaves = [*flat, *(f"{kernel}_{part}" for kernel in kernels for part in _PARTS)]
    known = {_tensor_name(leaf): leaf for leaf in leaves}
    names = {}
    for key in weights.shapes:
        weights.check_floating(key)
        if key not in known:
            raise UserError(
                f"{folder / WEIGHTS}: the tensor {key} belongs to no matrix or parameter of the"
                f" base model.{nearest(key, known)} LoRA on embeddings is not supported."
            )
        names[known[key]] = key
    return names


def _check_tensors(
    folder: Path,
    weights: Weights,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    wanted: set[str],
) -> None:
    """Refuses tensors that are missing, left over, or of another shape."""
    file = folder / WEIGHTS
    for name in sorted(wanted - {*names}):
        raise UserError(
            f"{file}: the tensor {_tensor_name(name)} is missing, which {CONFIG} asks for. Save the"
            " adapter again."
        )
    for name, key in names.items():
        if name not in shapes:
            raise UserError(
                f"{file}: the tensor {key} is left over: there is no lora_A beside it, or {CONFIG}"
                " has use_dora false."
            )
        shape = shapes[name][::-1] if _is_transposed(name) else shapes[name]
        if weights.shapes[key] != shape:
            raise UserError(
                f"{file}: the tensor {key} has shape {list(weights.shapes[key])}, but the base"
                f" model and r in {CONFIG} ask for {list(shape)}."
            )


def _expected(config: Mapping[str, Any], flat: Mapping[str, Any], found: set[str]) -> Iterator[str]:
    """The leaves that the config's `modules_to_save` and `target_modules` ask for."""
    whole = config.get("modules_to_save") or ()
    targets = config.get("target_modules") or ()
    narrowed = any(config.get(field) for field in ("layers_to_transform", "exclude_modules"))
    for name in flat:
        parts = _module(name).split(".")
        above = [".".join(parts[: i + 1]) for i in range(len(parts))]
        if any(module.endswith(end) for module in above for end in whole):
            yield name
        elif not name.endswith("/kernel") or narrowed:
            continue
        elif is_target(_module(name), targets) and name not in found:
            yield f"{name}_lora_a"


def _modules_to_save(
    flat: Mapping[str, Any], labels: Mapping[str, str], kernels: list[str]
) -> set[str]:
    """The modules that hold something trained other than LoRA's leaves, and the head."""
    for kernel in kernels:
        if not kernel.endswith("/kernel"):
            raise UserError(
                f"LoRA on {kernel!r} has no place in peft's files: expected names that end in"
                " /kernel. Use the merged model instead."
            )
    targets = {*map(_module, kernels)}
    own = {name for name in flat if not name.endswith(_ADDED)}
    modules = {_module(name) for name in own}
    saved = {_module(name) for name in own if labels[name] != FROZEN}
    saved |= {module for module in modules if _HEADS.search(module)}
    for module in sorted(saved):
        for other in sorted(modules):  # peft looks at how a name ends
            within = other.endswith(module) or other.startswith(f"{module}.")
            if within and (other in targets or other not in saved):
                raise UserError(
                    f"the module {module!r} is trained as it is, which peft's files cannot say,"
                    f" as they would cover {other!r} too, which"
                    f" {'has LoRA' if other in targets else 'is frozen'}. Use the merged model"
                    " instead, or choose other targets."
                )
    return saved


def _whole_head(module: str) -> str:
    """The head that a module is a part of, which peft saves whole; else the module itself."""
    match = _HEADS.search(module)
    return module[: match.end(1)] if match else module


def _module(leaf: str) -> str:
    """The torch module of a leaf."""
    return leaf.rpartition("/")[0].replace("/", ".")


def _tensor_name(leaf: str) -> str:
    """The name in peft's files of a leaf of the extended tree."""
    kernel, _, part = leaf.rpartition("/kernel_")
    name = kernel.replace("/", ".") + _PARTS[part] if kernel else convert.torch_name(leaf)
    return PREFIX + name


def _is_transposed(leaf: str) -> bool:
    """Whether peft stores a leaf of the extended tree with its axes reversed."""
    is_kernel = leaf.endswith("/kernel") and not convert.is_conv1d(leaf)
    return is_kernel or leaf.endswith(("_lora_a", "_lora_b"))
