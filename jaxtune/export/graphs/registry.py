"""The graph of each model family, by its `model_type`."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtune.export.graphs.albert import albert
from jaxtune.export.graphs.bert import bert, electra, roberta
from jaxtune.export.graphs.convnext import convnext
from jaxtune.export.graphs.deberta import deberta
from jaxtune.export.graphs.dinov2 import dinov2
from jaxtune.export.graphs.distilbert import distilbert
from jaxtune.export.graphs.gpt2 import gpt2
from jaxtune.export.graphs.graph import Graph
from jaxtune.export.graphs.modernbert import modernbert
from jaxtune.export.graphs.mpnet import mpnet
from jaxtune.export.graphs.resnet import resnet
from jaxtune.export.graphs.vit import vit

GRAPHS: Mapping[str, Callable[[Graph, Any, str], str]] = {
    "bert": bert,
    "roberta": roberta,
    "xlm-roberta": roberta,
    "distilbert": distilbert,
    "electra": electra,
    "albert": albert,
    "mpnet": mpnet,
    "deberta-v2": deberta,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "vit": vit,
    "dinov2": dinov2,
    "dinov2_with_registers": dinov2,
    "resnet": resnet,
    "convnext": convnext,
}
"""(graph, the family's config, name of the head) -> the tensor of the logits.

The inputs have the names of `jaxtune.export.signature`.
"""
