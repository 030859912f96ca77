"""The model families by the `model_type` of their `config.json`."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from jaxtune.core.errors import UserError, nearest
from jaxtune.core.kept_results import keep_results
from jaxtune.core.types import ApplyFn, Array, Batch, Params, PRNGKey, WithStatistics
from jaxtune.models.choice import with_choice
from jaxtune.models.families.albert import ALBERT
from jaxtune.models.families.bert import BERT
from jaxtune.models.families.convnext import CONVNEXT
from jaxtune.models.families.deberta import DEBERTA_V2
from jaxtune.models.families.dinov2 import DINOV2, DINOV2_WITH_REGISTERS
from jaxtune.models.families.distilbert import DISTILBERT
from jaxtune.models.families.electra import ELECTRA
from jaxtune.models.families.gpt2 import GPT2
from jaxtune.models.families.modernbert import MODERNBERT
from jaxtune.models.families.mpnet import MPNET
from jaxtune.models.families.resnet import RESNET
from jaxtune.models.families.roberta import ROBERTA, XLM_ROBERTA
from jaxtune.models.families.vit import VIT
from jaxtune.models.family import Family, Head
from jaxtune.models.inputs import example_text
from jaxtune.models.pooling import POOLED, POOLING_HEADS, Pooling, with_pooling
from jaxtune.parallel.collectives import leaving_explicit_axes

FAMILIES: Mapping[str, Family] = {
    family.model_type: with_pooling(with_choice(family), Pooling())
    for family in (
        *(BERT, ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA, ALBERT, MPNET, DEBERTA_V2, MODERNBERT),
        *(GPT2, VIT, DINOV2, DINOV2_WITH_REGISTERS, RESNET, CONVNEXT),
    )
}


_REFUSED = {
    "eurobert": "its layers are a decoder's, with RMSNorm and keys that several queries share",
    "nomic_bert": "its layers have rotary positions and gates, which BERT's have not",
    "dinov3_vit": "it has rotary positions, which DINOv2 has not",
    "convnextv2": "its layers have a response normalisation, which ConvNeXt has not",
}
_REMEDY = (
    "Of such encoders of texts, ModernBERT, and mmBERT and Ettin, whose files are ModernBERT's, are"
    " loaded; of images DINOv2, with registers or without, ConvNeXt, ViT and ResNet."
)
"""Families that are near those here, and why they are not among them."""


CLASS_HEADS = ("sequence", "token", "image", POOLED)
"""Heads whose outputs are classes, or targets of a regression."""


def find_family(hf_config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`.

    Raises:
      UserError: a model_type that jaxtune does not have, or none.
    """
    model_type = str(hf_config.get("model_type"))[:80]
    if model_type in _REFUSED:
        raise UserError(
            f"{source}: model_type is {model_type!r}, which jaxtune does not load:"
            f" {_REFUSED[model_type]}. {_REMEDY}"
        )
    if model_type not in FAMILIES:
        raise UserError(
            f"{source}: model_type is {model_type!r}, but jaxtune loads"
            f" {', '.join(FAMILIES)}.{nearest(model_type, FAMILIES)}"
        )
    return FAMILIES[model_type]


def find_head(family: Family, name: str) -> Head:
    """The head that a task needs.

    Raises:
      UserError: the family has none of that name.
    """
    if name not in family.heads:
        having = [f.model_type for f in FAMILIES.values() if name in f.heads]
        raise UserError(
            f"{family.model_type} has no head for this task ({name}); it has those for"
            f" {', '.join(family.heads)}. Models that have one: {', '.join(having)}."
        )
    return family.heads[name]


def saved_head(family: Family, hf_config: Mapping[str, Any]) -> str | None:
    """The name of the head that a `config.json` says its files have; None for a bare backbone."""
    architectures = hf_config.get("architectures") or ()
    for name, head in family.heads.items():
        if name not in POOLING_HEADS and head.architecture in architectures:
            return name
    return None


def whole(batch: Batch) -> tuple[Batch]:
    """What `Model.__call__` takes of a batch."""
    return (batch,)


def make_apply(
    module: nn.Module,
    method: str | None = None,
    arguments: Callable[[Batch], tuple[Any, ...]] = whole,
) -> ApplyFn:
    """The module as `apply_fn(params, batch, *, key, train)`; `key` feeds dropout.

    In training, a module that sows into the collection `statistics` gives `WithStatistics`.

    Args:
      module: any; its method takes `(*arguments(batch), train)`.
      method: `__call__` if None.
      arguments: what of a batch the method takes.
    """

    def apply_fn(params: Params, batch: Batch, *, key: PRNGKey | None, train: bool) -> Any:
        def run(params: Params, batch: Batch, key: PRNGKey | None) -> tuple[Array, Params]:
            if not train:
                inputs = arguments(batch)
                outputs: Any = module.apply({"params": params}, *inputs, train, method=method)
                return outputs, {}
            rngs = None if key is None else {"dropout": key}
            outputs, sown = module.apply(
                {"params": params},
                *arguments(batch),
                train,
                rngs=rngs,
                mutable=["statistics"],
                method=method,
            )
            return outputs, sown.get("statistics", {})

        outputs, statistics = leaving_explicit_axes(run)(params, batch, key)
        return WithStatistics(outputs, statistics) if statistics else outputs

    return apply_fn


def parameter_shapes(module: nn.Module) -> Params:
    """The module's parameter tree as `jax.ShapeDtypeStruct`, without computing anything."""
    return jax.tree.map(lambda leaf: leaf, _shapes(module))  # a tree that may be changed


@keep_results(16)
def _shapes(module: nn.Module) -> Params:
    """The same, traced once for modules that are equal."""
    shapes = jax.eval_shape(lambda: init_params(module, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)


def init_params(module: nn.Module, key: PRNGKey) -> Params:
    """Random parameters, drawn as the family's paper draws them."""
    batch = getattr(module, "example_batch", example_text)()
    return module.init(key, batch)["params"]
