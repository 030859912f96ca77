"""Loading a pretrained model: from a folder or a hub id to a module and its parameters."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.kept_results import keep_results
from jaxtune.core.types import ApplyFn, Params
from jaxtune.io.json_files import sha256_of
from jaxtune.models import convert, registry
from jaxtune.models.design import Design, choose_outputs, make_design
from jaxtune.models.family import Family
from jaxtune.models.model import Model
from jaxtune.models.pooling import CLASSIFIER, POOLED, POOLING_HEADS
from jaxtune.models.sentence_files import LINEAR, dense_file
from jaxtune.models.source import read_source
from jaxtune.models.weight_plan import LoadReport, plan_from_scratch, plan_weights
from jaxtune.models.weights import Weights, open_weights, with_file


class Pretrained(NamedTuple):
    """A model ready to train or to predict.

    Attributes:
      apply_fn: the pure function of parameters and batch.
      params: nested dicts of all its arrays, float32 as they are loaded; None in a run, which holds
        them beside it.
      design: what the model is: folder, family, head, shapes.
      report: what was loaded, new and unused.
      sha256: of the weight files.
      buffers: tensors of the files that are no parameters, which an export writes again.
    """

    apply_fn: ApplyFn
    params: Params
    design: Design
    report: LoadReport
    sha256: str
    buffers: dict[str, np.ndarray]

    @property
    def module(self) -> Model:
        """The Linen module behind `apply_fn`."""
        return self.design.module

    @property
    def config(self) -> Any:
        """The family's frozen config."""
        return self.design.source.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the head, in the order of its outputs; empty where they are no classes."""
        return self.design.outputs.class_names

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.design.source.path


def load_pretrained(
    path: str | Path,
    *,
    head: str = "sequence",
    class_names: Sequence[str] | None = None,
    num_outputs: int | None = None,
    key: jax.Array | None = None,
    compute_dtype: Any = jnp.float32,
    revision: str | None = None,
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

    Raises:
      UserError: a missing folder or file, pickled weights, another architecture, or a tensor that
        is missing or has another shape, named with both shapes.
    """
    source = read_source(path, revision)
    outputs = choose_outputs(head, source.hf_config, class_names, num_outputs)
    return load_weights(make_design(source, head, outputs, compute_dtype), key=key)


def load_weights(
    design: Design,
    *,
    key: jax.Array | None = None,
    sha256: str | None = None,
    from_scratch: bool = False,
    put: Callable[[str, np.ndarray], jax.Array] = lambda name, value: jax.device_put(value),
) -> Pretrained:
    """Gives a model the values that its folder holds.

    Args:
      design: what the model is.
      key: draws what is new; without it, new parts are an error.
      sha256: the expected digest of the weight files; None does not check.
      from_scratch: all parameters are drawn; no weights are read, and the digest of `config.json`
        stands for theirs.
      put: (name, value) -> the parameter where it belongs; one after the other.

    Raises:
      UserError: no weights or pickled ones, a wrong digest, or a tensor that is missing or has
        another shape, named with both shapes.
    """
    folder, leaves = design.source.path, paths.leaf_names(design.shapes)
    if from_scratch:
        weights = Weights({}, lambda name: np.zeros(0), "torch", (folder / "config.json",), {})
    else:
        weights = _open(design)
    with ThreadPoolExecutor(1, "digest") as pool:  # hashing takes no GIL
        hashed = pool.submit(sha256_of, weights.files)
        if sha256 is not None:
            _check_digest(weights, hashed.result(), sha256)
        plan, report = plan_from_scratch(design) if from_scratch else plan_weights(design, weights)
        if report.new and key is None:
            raise UserError(
                f"{folder} has no usable head: {'; '.join(report.new.values())}. Fine-tune it"
                " first; what it gives now follows from chance."
            )
        # One after the other, so that no second copy of all is in memory.
        flat = {leaf: put(leaf, _read(leaf, name, weights)) for leaf, name in plan.items()}
        digest = hashed.result()
    if report.new:
        new = tuple(leaf for leaf in leaves if leaf not in plan)
        flat |= _drawing(design.module, new)(key)
    params = paths.unflatten({leaf: flat[leaf] for leaf in leaves})
    apply_fn = registry.make_apply(design.module)
    kept = _kept(weights, design.source.family)
    buffers = _buffers(weights, leaves) | _poolers(weights, design) | kept
    return Pretrained(apply_fn, params, design, report, digest, buffers)


def outline_weights(design: Design, *, from_scratch: bool = False) -> Pretrained:
    """A model of which the shapes of the parameters are known, and no value.

    Args:
      design: what the model is.
      from_scratch: as of `load_weights`; else the folder's files say which parts are new.

    Raises:
      UserError: as `load_weights`, but for values and digests.
    """
    if from_scratch:
        _, report = plan_from_scratch(design)
    else:
        _, report = plan_weights(design, _open(design))
    return Pretrained(registry.make_apply(design.module), design.shapes, design, report, "", {})


def _open(design: Design) -> Weights:
    """The folder's weights, with the file that sentence-transformers has of a linear layer."""
    weights = open_weights(design.source.path)
    if design.head_name != POOLED:
        return weights
    file = design.source.path / dense_file(design.module.top.pooling)
    return with_file(weights, file, LINEAR, CLASSIFIER)


def _buffers(weights: Weights, leaves: Iterable[str]) -> dict[str, np.ndarray]:
    """The counters of batch normalisation, which torch keeps; 0 where the files have none."""
    found = {}
    for leaf in leaves:
        if leaf.endswith("/mean"):
            name = f"{convert.torch_name(leaf).removesuffix('running_mean')}num_batches_tracked"
            known = name in weights.shapes
            found[name] = weights.read(name) if known else np.zeros((), np.int64)
    return found


def _poolers(weights: Weights, design: Design) -> dict[str, np.ndarray]:
    """The pooler that transformers expects beside a bare encoder, though embeddings read it not."""
    if design.head_name not in POOLING_HEADS or weights.layout != "torch":
        return {}
    prefix = f"{design.source.family.prefix}."
    names = (
        name for name in weights.shapes if re.match(rf"(?:{re.escape(prefix)})?pooler\.", name)
    )
    return {name.removeprefix(prefix): np.asarray(weights.read(name), np.float32) for name in names}


def _kept(weights: Weights, family: Family) -> dict[str, np.ndarray]:
    """Tensors that no parameter is and an export has, under the names of a model with a head."""
    found = {}
    for name in weights.shapes:
        if re.search(family.kept, name):
            weights.check_floating(name)
            spelled = name.replace("/", ".")
            head = "" if spelled.startswith(f"{family.prefix}.") else f"{family.prefix}."
            found[f"{head}{spelled}"] = np.asarray(weights.read(name), np.float32)
    return found


def _read(leaf: str, name: str, weights: Weights) -> np.ndarray:
    return np.asarray(convert.from_file(leaf, weights.read(name), weights.layout), np.float32)


@keep_results(16)
def _drawing(module: Model, leaves: tuple[str, ...]) -> Callable[..., dict[str, jax.Array]]:
    """Draws fresh values for some leaves; the compiler drops the drawing of all others."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        flat = paths.flatten(registry.init_params(module, key))
        return {leaf: flat[leaf] for leaf in leaves}

    return jax.jit(draw)


def _check_digest(weights: Weights, found: str, expected: str) -> None:
    if found != expected:
        raise UserError(
            f"{weights.files[0].parent}: the weights have sha256 {found}, expected {expected}."
            " Fetch them again, or correct config.model.sha256."
        )
