"""What differs between model families outside their mathematics, as data."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.core.types import Params
from jaxtune.parallel.sharding import Rule, Sharding


class Head(NamedTuple):
    """What stands on a backbone for one kind of task.

    Attributes:
      architecture: the transformers class that an export names.
      make_module: (config, number of outputs, dtype of the products) -> Linen module.
      modules: parts that a checkpoint may lack as a whole; they are then new. The last one has the
        outputs, and is new too where the wanted classes are others than the saved ones.
    """

    architecture: str
    make_module: Callable[[Any, int, Any], nn.Module]
    modules: tuple[str, ...]


class Names(NamedTuple):
    """Regexes for a family's parameter names, where strategies look for them.

    Attributes:
      layers: the groups are a layer's place, counted from the input.
      below: what lies below the first layer.
      norms: normalisation layers.
      queries_values: the matrices that LoRA acts on.
      keys_values: the matrices whose outputs IA3 scales.
      widened: the matrices whose inputs IA3 scales.
      attention_outputs: the last matrix of each attention.
      feedforward_outputs: the last matrix of each feed-forward block.
      keys: the matrices that give keys, alone or with queries and values.
      statistics: running statistics, which no gradient trains; None where there are none.
    """

    layers: str
    below: str
    norms: str
    queries_values: tuple[str, ...]
    keys_values: tuple[str, ...]
    widened: tuple[str, ...]
    attention_outputs: tuple[str, ...]
    feedforward_outputs: tuple[str, ...]
    keys: tuple[str, ...]
    statistics: str | None = None


class Family(NamedTuple):
    """A model family.

    Attributes:
      model_type: as `config.json` spells it.
      backbone: the name under which a model with a head holds its encoder.
      heads: by the name that a task gives it: `sequence`, `token`, `span`, `causal_lm`,
        `masked_lm`, `image`.
      config_from_hf: parsed config.json and its path -> frozen config, or a UserError.
      names: where strategies find what they act on.
      buffers: regex for tensors in weight files that are not parameters, or are tied to one.
      partition: which axes of a mesh share out which dimension of the parameters; see `sharding`.
    """

    model_type: str
    backbone: str
    heads: Mapping[str, Head]
    config_from_hf: Callable[[Mapping[str, Any], str], Any]
    names: Names
    buffers: str
    partition: tuple[Rule, ...] = ()


def check_shared_heads(config: Any, sharding: Sharding | None) -> None:
    """Refuses a `tensor` axis that would cut through an attention head.

    Raises:
      UserError: it does not divide their number.
    """
    size = 1 if sharding is None else sharding.mesh.shape["tensor"]
    for name in ("num_attention_heads", "n_heads", "n_head"):
        heads = getattr(config, name, size)
        if heads % size:
            raise UserError(
                f"config.parallel.tensor is {size}, but the model has {heads} attention heads"
                f" ({name}): expected a divisor of {heads}."
            )


def with_statistics(config: Any, trained: bool) -> Any:
    """A family's config with its running statistics trained or not; others as they are."""
    if not hasattr(config, "train_statistics"):
        return config
    return dataclasses.replace(config, train_statistics=trained)


def strategy_fields(
    family: Family, head: Head, params: Params, placement: str | None = None
) -> dict[str, dict[str, Any]]:
    """What a family's names are to each tuning strategy, by the strategy's name and field.

    Args:
      family: has the names.
      head: the last of its modules is the head, if the model has it: the outputs of a language
        model may come from its word embeddings instead.
      params: the model's tree; only names are read.
      placement: of bottleneck adapters.
    """
    n, last = family.names, f"{head.modules[-1]}/"
    has_head = any(name.startswith(last) for name in paths.leaf_names(params))
    top = {"head": rf"^{re.escape(last)}" if has_head else None}
    depth = {"layers": n.layers, "below": n.below}
    after = n.feedforward_outputs
    if placement == "houlsby":
        after = (*n.attention_outputs, *after)
    return {
        "head": top,
        "bitfit": top,
        "layernorm": {"norms": n.norms} | top,
        "embeddings_frozen": {"below": n.below},
        "last_layers": depth,
        "first_layers_frozen": depth,
        "gradual": depth,
        "lora": {"targets": n.queries_values} | top,
        "ia3": {"targets": n.keys_values, "feedforward_targets": n.widened} | top,
        "adapter": {"targets": after} | top,
        "prefix": {"targets": n.keys} | top,
    }
