"""What differs between model families outside their mathematics, as data."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
from jax.sharding import PartitionSpec as P

from jaxtune.core.bound import bind
from jaxtune.core.errors import UserError
from jaxtune.models.model import Model
from jaxtune.parallel.sharding import Rule, Sharding


class Head(NamedTuple):
    """What stands on a backbone for one kind of task.

    Attributes:
      architecture: the transformers class that an export names.
      make_top: (config, number of outputs, dtype of the products) -> what `Model.top` is.
      modules: parts that a checkpoint may lack as a whole; they are then new. The last one has the
        outputs, and is new too where the wanted classes are others than the saved ones.
      is_tied: whether a config's outputs come from the word embeddings alone, so that the last of
        `modules` is not there.
      fitted: those of `modules` that no step trains: they are fitted on what stands below them.
    """

    architecture: str
    make_top: Callable[[Any, int, Any], nn.Module]
    modules: tuple[str, ...]
    is_tied: Callable[[Any], bool] = lambda config: False
    fitted: tuple[str, ...] = ()


class Matrices(NamedTuple):
    """Regexes for the matrices of a family's layers.

    Attributes:
      queries: of attention.
      keys: of attention; the same regex as `queries` where one matrix gives both.
      values: likewise.
      attention_output: the last matrix of each attention.
      feedforward_output: the last matrix of each feed-forward block.
    """

    queries: str
    keys: str
    values: str
    attention_output: str
    feedforward_output: str


class Names(NamedTuple):
    """Regexes for a family's parameter names.

    Attributes:
      layers: the groups are a layer's place, counted from the input.
      below: what lies below the first layer.
      norms: normalisation layers.
      matrices: of attention and feed-forward blocks; None where there are no such blocks.
      statistics: running statistics, which no gradient trains; None where there are none.
    """

    layers: str
    below: str
    norms: str
    matrices: Matrices | None = None
    statistics: str | None = None


class Family(NamedTuple):
    """A model family.

    Attributes:
      model_type: as `config.json` spells it.
      prefix: the name under which a model with a head holds its backbone.
      backbone: (config, dtype of the products, name) -> what `Model.make_backbone` gives.
      heads: by the name that a task gives it: `sequence`, `token`, `span`, `causal_lm`,
        `masked_lm`, `image`; those of choices and of embeddings are added to them.
      config_from_hf: parsed config.json and its path, for messages -> frozen config, where absent
        fields have the family's defaults. A UserError for a field of the wrong type, fields that do
        not fit together, or a variant of the family that is computed differently.
      names: of its parameters.
      buffers: regex for tensors in weight files that are not parameters, or are tied to one.
      sharding_rules: which axes of a mesh share out which dimension of the parameters; see
        `jaxtune.parallel.sharding`.
      kept: regex for those tensors that are not parameters which an export writes as they were.
    """

    model_type: str
    prefix: str
    backbone: Callable[..., nn.Module]
    heads: Mapping[str, Head]
    config_from_hf: Callable[[Mapping[str, Any], str], Any]
    names: Names
    buffers: str
    sharding_rules: tuple[Rule, ...] = ()
    kept: str = r"(?!)"

    def make_module(self, head: str, config: Any, num_outputs: int, dtype: Any) -> Model:
        """A model of this family with one of its heads.

        Args:
          head: one of `heads`.
          config: as `config_from_hf` gives it.
          num_outputs: of the head; a language model has as many as words, whatever is given.
          dtype: of the products; an `Arithmetic` says for which device, others are for this
            process's own. Parameters are float32.
        """
        top = self.heads[head].make_top(config, num_outputs, dtype)
        return Model(bind(self.backbone, config, dtype), self.prefix, top)


def layer_rules(projections: str, widening: str, last: str) -> tuple[Rule, ...]:
    """Sharding rules that cut attention between its heads, and feed-forward blocks inside.

    Args:
      projections: regex for the modules that give queries, keys and values, each alone.
      widening: for the first module of each feed-forward block.
      last: for the last module of each attention and of each feed-forward block.

    Source: Shoeybi et al. 2019, Megatron-LM, section 3.
    """
    return (
        (rf"(?:{projections}|{widening})/kernel$", P("fsdp", "tensor")),
        (rf"(?:{projections}|{widening})/bias$", P("tensor")),
        (rf"(?:{projections})/kernel_lora_b$", P(None, "tensor")),
        (rf"(?:{last})/kernel$", P("tensor", "fsdp")),
    )


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
