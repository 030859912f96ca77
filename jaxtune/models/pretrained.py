"""Loading a pretrained model: from a folder or a hub id to a module and its parameters."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import ApplyFn, Params
from jaxtune.io.json_files import read_json_object, sha256_of
from jaxtune.models import convert, registry
from jaxtune.models.family import Family, Head, with_statistics
from jaxtune.models.weights import Weights, open_weights


class LoadReport(NamedTuple):
    """What became of each tensor.

    Attributes:
      loaded: leaves that came from the files.
      new: newly initialised parts, each with the reason.
      unused: tensors in the files that no leaf took.
    """

    loaded: tuple[str, ...]
    new: dict[str, str]
    unused: tuple[str, ...]

    def lines(self) -> list[str]:
        """One line for each of the three."""
        new = "; ".join(f"{part} ({reason})" for part, reason in self.new.items())
        unused = sorted({re.split(r"[./]", name)[0] for name in self.unused})
        return [
            f"loaded: {len(self.loaded)} tensors",
            f"newly initialised: {new or 'nothing'}",
            f"unused: {len(self.unused)} tensors" + (f" ({', '.join(unused)})" if unused else ""),
        ]


class Pretrained(NamedTuple):
    """A model ready to train or to predict.

    Attributes:
      apply_fn: the pure function of parameters and batch.
      params: nested dicts of float32 arrays, all of them.
      module: the Linen module behind `apply_fn`.
      config: the family's frozen config.
      family: names and conversions of the family.
      head: what stands on its backbone.
      hf_config: the parsed `config.json`.
      class_names: of the head, in the order of its outputs; empty where they are no classes.
      num_outputs: of the head.
      report: what was loaded, new and unused.
      folder: where the files are.
      sha256: of the weight files.
      buffers: tensors of the files that are no parameters, which an export writes again.
    """

    apply_fn: ApplyFn
    params: Params
    module: nn.Module
    config: Any
    family: Family
    head: Head
    hf_config: dict[str, Any]
    class_names: tuple[str, ...]
    num_outputs: int
    report: LoadReport
    folder: Path
    sha256: str
    buffers: dict[str, np.ndarray]


def load_pretrained(
    path: str | Path,
    *,
    head: str = "sequence",
    class_names: Sequence[str] | None = None,
    num_outputs: int | None = None,
    key: jax.Array | None = None,
    compute_dtype: Any = jnp.float32,
    revision: str | None = None,
    sha256: str | None = None,
    from_scratch: bool = False,
    train_statistics: bool = True,
    put: Callable[[str, np.ndarray], jax.Array] = lambda name, value: jax.device_put(value),
) -> Pretrained:
    """Loads a model with a head.

    The files' own head is kept if its classes are the wanted ones (then in the files' order);
    otherwise the head is new, which the report says with the reason. Without `class_names` and
    `num_outputs` the files must bring a head.

    Args:
      path: a folder in the transformers layout, or a hub id (the only case that uses a network).
      head: one of the family's `heads`.
      class_names: of a classification, at least two.
      num_outputs: of a head without classes: targets of a regression, 2 for spans; a language model
        has as many as words, whatever is given.
      key: draws a new head; without it a new head is an error.
      compute_dtype: dtype of the products, float32 or bfloat16. Parameters are float32.
      revision: branch, tag or commit on the hub.
      sha256: the expected digest of the weight files; None does not check.
      from_scratch: all parameters are drawn; of the folder only `config.json` is read, whose digest
        then stands for the weights.
      train_statistics: whether batch normalisation, where there is any, uses and follows the
        statistics of training batches.
      put: (name, value) -> the parameter where it belongs; one after the other.

    Raises:
      UserError: a missing folder or file, pickled weights, another architecture, a wrong digest,
        or a tensor that is missing or has another shape, named with both shapes.
    """
    folder, family, config, hf_config = read_config(path, revision)
    config = with_statistics(config, train_statistics)
    part = registry.find_head(family, head)
    if from_scratch:
        weights = Weights({}, lambda name: np.zeros(0), "torch", (folder / "config.json",))
    else:
        weights = open_weights(folder)
    digest = _check_digest(weights, sha256)
    names, reason = choose_classes(head, hf_config, class_names, num_outputs)
    outputs = len(names) or num_outputs or len(head_names(hf_config))
    module = family.make_module(head, config, outputs, compute_dtype)
    shapes = paths.flatten(registry.parameter_shapes(module))
    if from_scratch:
        report = LoadReport((), {p: "from scratch" for p in dict.fromkeys(map(_top, shapes))}, ())
        plan: dict[str, str] = {}
    else:
        plan, report = _plan(shapes, weights, family, part, folder, reason)
    if report.new and key is None:
        raise UserError(
            f"{folder} has no usable head: {'; '.join(report.new.values())}. Fine-tune it first, or"
            " give `key` to draw a new head."
        )
    # One after the other, so that no second copy of all is in memory.
    flat = {leaf: put(leaf, _read(leaf, name, weights)) for leaf, name in plan.items()}
    if report.new:
        flat |= _draw(module, [leaf for leaf in shapes if leaf not in plan], key)
    params = paths.unflatten({leaf: flat[leaf] for leaf in shapes})
    apply_fn = registry.make_apply(module)
    return Pretrained(
        apply_fn,
        params,
        module,
        config,
        family,
        part,
        hf_config,
        names,
        outputs,
        report,
        folder,
        digest,
        _buffers(weights, shapes),
    )


def read_config(
    path: str | Path, revision: str | None = None
) -> tuple[Path, Family, Any, dict[str, Any]]:
    """What a model is, before its weights: (folder, family, frozen config, parsed config.json).

    Raises:
      UserError: as `load_pretrained` does for folders and architectures.
    """
    folder = find_folder(path, revision)
    source = folder / "config.json"
    if not source.exists() and (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} has an adapter_config.json and no config.json: it holds what was trained"
            " on a base model, not the model. jaxtune.predict and --mode=eval open it; to train"
            " further, set config.model.path to a merged model/ folder, or to the base model."
        )
    hf_config = read_json(source)
    family = registry.find_family(hf_config, str(source))
    try:
        head_names(hf_config)
    except (ValueError, TypeError) as error:
        raise UserError(
            f'{source}: expected id2label such as {{"0": NAME, "1": NAME}}, or num_labels as a'
            f" whole number: {error}."
        ) from None
    return folder, family, family.config_from_hf(hf_config, str(source)), hf_config


def find_folder(path: str | Path, revision: str | None = None) -> Path:
    """The local folder of a path, or of a hub id after its files were fetched."""
    text = str(path)
    folder = Path(os.path.expanduser(text))  # Path.expanduser raises for an unknown ~name
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"model path {text} is a file, expected a folder with config.json.")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text):
        raise UserError(f"model path {text} does not exist, and is not a hub id (owner/name).")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        fetched = Path(snapshot_download(text, revision=revision, allow_patterns=patterns))
        if not list(fetched.glob("*.safetensors")):
            patterns = ["flax_model.msgpack"]
            snapshot_download(text, revision=revision, allow_patterns=patterns)
    except Exception as error:  # the hub client's errors share no base class
        raise UserError(
            f"model path {text} is no local folder, and as a hub id it could not be fetched:"
            f" {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}."
            " Check the name and the network, or set config.model.path to a local folder."
        ) from None
    return fetched


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      UserError: no such file, or not a JSON object.
    """
    if not file.exists():
        raise UserError(f"{file.parent} is no model folder: it has no {file.name}.")
    return read_json_object(file)


def head_names(hf_config: dict[str, Any]) -> tuple[str, ...]:
    """Class names in the order of the outputs; LABEL_i where the config gives none."""
    id2label = hf_config.get("id2label")
    if id2label:
        return tuple(str(id2label[k]) for k in sorted(id2label, key=int))
    return tuple(f"LABEL_{i}" for i in range(hf_config.get("num_labels", 2)))


def is_regression(hf_config: dict[str, Any]) -> bool:
    """Whether the saved head predicts a number."""
    problem = hf_config.get("problem_type")
    return problem == "regression" or (problem is None and len(head_names(hf_config)) == 1)


def _buffers(weights: Weights, shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The counters of batch normalisation, which torch keeps; 0 where the files have none."""
    found = {}
    for leaf in shapes:
        if leaf.endswith("/mean"):
            name = f"{convert.torch_name(leaf).removesuffix('running_mean')}num_batches_tracked"
            known = name in weights.shapes
            found[name] = weights.read(name) if known else np.zeros((), np.int64)
    return found


def _top(leaf: str) -> str:
    return leaf.partition("/")[0]


def choose_classes(
    head: str, hf_config: dict[str, Any], wanted: Sequence[str] | None, num_outputs: int | None
) -> tuple[tuple[str, ...], str | None]:
    """The class names in the order of the outputs, and why the saved head cannot be used.

    Args:
      head: one of the family's `heads`.
      hf_config: the parsed `config.json`.
      wanted: the data's classes; None takes the saved ones.
      num_outputs: of a head without classes.

    Returns:
      (names, reason); () where the outputs are no classes, None where the saved head can be used.
    """
    if head not in registry.CLASS_HEADS:
        return (), None
    saved, saved_regression = head_names(hf_config), is_regression(hf_config)
    if num_outputs is not None:
        if not saved_regression:
            return (), "the files hold a classifier"
        same = len(saved) == num_outputs
        return (), None if same else f"the files' head has {len(saved)} outputs"
    if wanted is None:
        return (() if saved_regression else saved), None
    names = tuple(wanted)
    if saved_regression:
        return names, "the files hold a regression"
    generic_names = tuple(f"LABEL_{i}" for i in range(len(names)))
    if sorted(saved) == sorted(names):
        return saved, None
    if saved == generic_names and names == tuple(str(i) for i in range(len(names))):
        return names, None
    return names, f"the files' head has other classes: {', '.join(saved[:5])}"


def _plan(
    shapes: dict[str, Any],
    weights: Weights,
    family: Family,
    head: Head,
    folder: Path,
    head_reason: str | None,
) -> tuple[dict[str, str], LoadReport]:
    """Which tensor each leaf is read from; all shapes are checked before anything is read."""
    found = {leaf: _source_name(leaf, weights, family) for leaf in shapes}
    new: dict[str, str] = {}
    for part in head.modules:
        leaves = [leaf for leaf in shapes if leaf.startswith(f"{part}/")]
        if leaves and all(found[leaf] is None for leaf in leaves):
            new[part] = "not in the files"
        elif leaves and part == head.modules[-1] and head_reason is not None:
            new[part] = head_reason
    plan = {}
    for leaf, shape in shapes.items():
        if any(leaf.startswith(f"{part}/") for part in new):
            continue
        name = found[leaf]
        if name is None:
            raise UserError(
                f"{folder}: the tensor {convert.torch_name(leaf)} of shape"
                f" {_stored_shape(leaf, shape.shape, weights)} is missing from"
                f" {', '.join(file.name for file in weights.files)}."
            )
        expected = _stored_shape(leaf, shape.shape, weights)
        if weights.shapes[name] != expected:
            raise UserError(
                f"{folder}: the tensor {name} has shape {weights.shapes[name]}, but config.json"
                f" asks for {expected}."
            )
        plan[leaf] = name
    used = set(plan.values())
    unused = tuple(
        name for name in weights.shapes if name not in used and not re.search(family.buffers, name)
    )
    return plan, LoadReport(tuple(plan), new, unused)


def _source_name(leaf: str, weights: Weights, family: Family) -> str | None:
    """The file's name for a leaf, with or without the backbone's prefix; None if absent."""
    stem = leaf.removeprefix(f"{family.prefix}/")
    for candidate in (leaf, stem):
        if weights.layout == "flax":
            spellings = [candidate]
        else:
            spellings = [convert.torch_name(candidate), convert.old_torch_name(candidate)]
        for name in spellings:
            if name is not None and name in weights.shapes:
                return name
    return None


def _stored_shape(leaf: str, shape: tuple[int, ...], weights: Weights) -> tuple[int, ...]:
    return convert.file_shape(leaf, shape, weights.layout)


def _read(leaf: str, name: str, weights: Weights) -> np.ndarray:
    return np.asarray(convert.from_file(leaf, weights.read(name), weights.layout), np.float32)


def _draw(module: nn.Module, leaves: list[str], key: jax.Array | None) -> dict[str, jax.Array]:
    """Fresh values for some leaves; the compiler drops the drawing of all others."""

    def draw(k: jax.Array) -> dict[str, jax.Array]:
        flat = paths.flatten(registry.init_params(module, k))
        return {leaf: flat[leaf] for leaf in leaves}

    return jax.jit(draw)(key)


def _check_digest(weights: Weights, expected: str | None) -> str:
    found = sha256_of(weights.files)
    if expected is not None and found != expected:
        raise UserError(
            f"{weights.files[0].parent}: the weights have sha256 {found}, expected {expected}."
            " Fetch them again, or correct config.model.sha256."
        )
    return found
