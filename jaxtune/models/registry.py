"""The model families by the `model_type` of their `config.json`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtune.errors import UserError, nearest
from jaxtune.models import bert
from jaxtune.types import ApplyFn, Batch, Params, PRNGKey


class Family(NamedTuple):
    """What differs between model families outside their mathematics.

    Attributes:
      model_type: as `config.json` spells it.
      backbone: the name under which a model with a head holds its encoder.
      architecture: the transformers class that an export of a sequence classifier names.
      config_from_hf: parsed config.json and its path -> frozen config, or a UserError.
      make_module: (config, number of outputs, dtype of the products) -> Linen module.
      head_modules: parts that a base checkpoint may lack as a whole; they are then new.
      buffers: regex for tensors in weight files that are not parameters.
    """

    model_type: str
    backbone: str
    architecture: str
    config_from_hf: Callable[[Mapping[str, Any], str], Any]
    make_module: Callable[[Any, int, Any], nn.Module]
    head_modules: tuple[str, ...]
    buffers: str


FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        model_type="bert",
        backbone="bert",
        architecture="BertForSequenceClassification",
        config_from_hf=bert.config_from_hf,
        make_module=bert.BertForSequenceClassification,
        head_modules=("bert/pooler", "classifier"),
        buffers=r"embeddings[./]position_ids$",
    ),
}


def find_family(hf_config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`.

    Raises:
      UserError: a model_type that jaxtune does not have, or none.
    """
    model_type = str(hf_config.get("model_type"))
    if model_type not in FAMILIES:
        raise UserError(
            f"{source}: model_type is {model_type!r}, but jaxtune loads"
            f" {', '.join(FAMILIES)}.{nearest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]


def make_apply(module: nn.Module) -> ApplyFn:
    """The module as `apply_fn(params, batch, *, key, train)`; `key` feeds dropout."""

    def apply_fn(
        params: Params, batch: Batch, *, key: PRNGKey | None, train: bool
    ) -> Float[Array, "b c"]:
        rngs = {"dropout": key} if train and key is not None else None
        outputs: Any = module.apply({"params": params}, batch, train, rngs=rngs)
        return outputs

    return apply_fn


def parameter_shapes(module: nn.Module) -> Params:
    """The module's parameter tree as `jax.ShapeDtypeStruct`, without computing anything."""
    return jax.eval_shape(lambda: _init(module, jax.random.key(0)))


def init_params(module: nn.Module, key: PRNGKey) -> Params:
    """Random parameters, drawn as the family's paper draws them."""
    return _init(module, key)


def _init(module: nn.Module, key: PRNGKey) -> Params:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return module.init(key, {name: jnp.zeros((1, 1), jnp.int32) for name in names})["params"]
