"""A model before its weights are read: which head, with which classes, on which backbone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxtune.core.device import Device
from jaxtune.core.types import Params
from jaxtune.models import registry
from jaxtune.models.arithmetic import arithmetic
from jaxtune.models.choice import CHOICE, check_choice, is_choice
from jaxtune.models.family import Head
from jaxtune.models.model import Model
from jaxtune.models.source import Source, head_names, is_regression


class Outputs(NamedTuple):
    """What a head puts out.

    Attributes:
      size: how many numbers.
      class_names: in the order of the outputs; () where they are no classes.
      new_because: why the saved head cannot be used; None where it can.
    """

    size: int
    class_names: tuple[str, ...] = ()
    new_because: str | None = None


class Design(NamedTuple):
    """What a model is, apart from the values of its parameters.

    Attributes:
      source: its folder and config.
      head_name: one of the family's `heads`.
      outputs: of the head.
      module: the Linen module.
      shapes: the tree of its parameters, `jax.ShapeDtypeStruct`.
      device: that its programs are made for.
    """

    source: Source
    head_name: str
    outputs: Outputs
    module: Model
    shapes: Params
    device: Device

    @property
    def head(self) -> Head:
        """The family's, by its name."""
        return self.source.family.heads[self.head_name]


def choose_outputs(
    head: str,
    hf_config: dict[str, Any],
    wanted: Sequence[str] | None = None,
    num_outputs: int | None = None,
) -> Outputs:
    """The outputs of a head, and whether the saved one has them.

    Args:
      head: one of the family's `heads`.
      hf_config: the parsed `config.json`.
      wanted: the data's classes; None takes the saved ones.
      num_outputs: of a head without classes.
    """
    saved, saved_regression = head_names(hf_config), is_regression(hf_config)
    if head == CHOICE:
        check_choice(hf_config)
        return Outputs(1, (), None if is_choice(hf_config) else "the files hold no head of choices")
    if head not in registry.CLASS_HEADS:
        return Outputs(num_outputs or len(saved))
    if is_choice(hf_config) and (num_outputs or wanted):
        reason = "the files hold a head of choices"
        return Outputs(num_outputs or len(wanted or ()), tuple(wanted or ()), reason)
    if num_outputs is not None:
        if not saved_regression:
            return Outputs(num_outputs, (), "the files hold a classifier")
        same = len(saved) == num_outputs
        reason = None if same else f"the files' head has {len(saved)} outputs"
        return Outputs(num_outputs, (), reason)
    if wanted is None:
        return Outputs(len(saved), () if saved_regression else saved)
    names = tuple(wanted)
    if saved_regression:
        return Outputs(len(names), names, "the files hold a regression")
    if sorted(saved) == sorted(names):
        return Outputs(len(names), saved)
    numbers = range(len(names))
    if saved == tuple(f"LABEL_{i}" for i in numbers) and names == tuple(map(str, numbers)):
        return Outputs(len(names), names)
    reason = f"the files' head has other classes: {', '.join(saved[:5])}"
    return Outputs(len(names), names, reason)


def make_design(
    source: Source,
    head_name: str,
    outputs: Outputs,
    compute_dtype: Any = jnp.float32,
    device: Device | None = None,
    attention: str = "auto",
) -> Design:
    """The model of a folder with one of its family's heads.

    Args:
      source: from `read_source`.
      head_name: one of the family's `heads`.
      outputs: from `choose_outputs`.
      compute_dtype: dtype of the products, float32 or bfloat16.
      device: that the model's programs are made for; None for this process's own.
      attention: how it is computed; see `Arithmetic`.

    Raises:
      UserError: the family has no such head.
    """
    registry.find_head(source.family, head_name)
    chosen = arithmetic(compute_dtype, device, attention)
    module = source.family.make_module(head_name, source.config, outputs.size, chosen)
    shapes = registry.parameter_shapes(module)
    return Design(source, head_name, outputs, module, shapes, chosen.device)


def embedding_width(design: Design) -> int:
    """The length of a vector that a model of embeddings gives."""
    apply_fn, batch = registry.make_apply(design.module), design.module.example_batch()
    outputs = jax.eval_shape(
        lambda params: apply_fn(params, batch, key=None, train=False), design.shapes
    )
    return outputs.shape[-1]
