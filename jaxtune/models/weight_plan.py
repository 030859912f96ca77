"""Which tensor of the files becomes which parameter, by names and shapes alone."""

import re
from typing import NamedTuple

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models import convert
from jaxtune.models.design import Design
from jaxtune.models.kept_layers import file_leaf, split_left
from jaxtune.models.weights import Weights


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


def plan_weights(design: Design, weights: Weights) -> tuple[dict[str, str], LoadReport]:
    """Plans what is read; all shapes are checked before anything is.

    Args:
      design: what the model is.
      weights: what the files hold.

    Returns:
      (the name of the tensor of each leaf that is not to be drawn, the same in words).

    Raises:
      UserError: a tensor that is missing or has another shape, named with both shapes.
    """
    folder, family, layers = design.source.path, design.source.family, design.source.layers
    shapes = paths.flatten(design.shapes)
    found = {
        leaf: _tensor_name(file_leaf(leaf, family.names.layers, layers), weights, family.prefix)
        for leaf in shapes
    }
    new = _new_parts(design, found)
    plan = {}
    for leaf, shape in shapes.items():
        if leaf.startswith(tuple(f"{part}/" for part in new)):
            continue
        name, expected = found[leaf], convert.file_shape(leaf, shape.shape, weights.layout)
        if name is None:
            named = convert.torch_name(file_leaf(leaf, family.names.layers, layers))
            raise UserError(
                f"{folder}: the tensor {named} of shape {expected} is missing"
                f" from {', '.join(file.name for file in weights.files)}."
            )
        if weights.shapes[name] != expected:
            raise UserError(
                f"{folder}: the tensor {name} has shape {weights.shapes[name]}, but config.json"
                f" asks for {expected}."
            )
        weights.check_floating(name)
        plan[leaf] = name
    used = set(plan.values())
    unused = [
        name for name in weights.shapes if name not in used and not re.search(family.buffers, name)
    ]
    unused, own = split_left(unused, family.names.layers, layers)
    if own:
        raise UserError(
            f"{folder}: config.model.layers would leave out {own[0]}, for its layer comes first in"
            " the new model, where layers have no such tensor: expected 0 among the layers."
        )
    return plan, LoadReport(tuple(plan), new, tuple(unused))


def plan_from_scratch(design: Design) -> tuple[dict[str, str], LoadReport]:
    """As `plan_weights`, where all is drawn."""
    return {}, LoadReport((), dict.fromkeys(design.shapes, "from scratch"), ())


def _new_parts(design: Design, found: dict[str, str | None]) -> dict[str, str]:
    """The parts of the head that are drawn, each with the reason."""
    new: dict[str, str] = {}
    for part in design.head.modules:
        names = [name for leaf, name in found.items() if leaf.startswith(f"{part}/")]
        if names and not any(names):
            new[part] = "not in the files"
        elif names and part == design.head.modules[-1] and design.outputs.new_because is not None:
            new[part] = design.outputs.new_because
    return new


def _tensor_name(leaf: str, weights: Weights, prefix: str) -> str | None:
    """The file's name for a leaf, with or without the backbone's prefix; None if absent."""
    for candidate in (leaf, leaf.removeprefix(f"{prefix}/")):
        if weights.layout == "flax":
            spellings = [candidate]
        else:
            spellings = [convert.torch_name(candidate), convert.old_torch_name(candidate)]
        for name in spellings:
            if name is not None and name in weights.shapes:
                return name
    return None
