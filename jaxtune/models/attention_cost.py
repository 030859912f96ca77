"""What attention costs a token, beside what the rest of the model does.

From counts of operations, and from what a score costs that is no product: measured on a CPU, where
a step of training with dropout spends as long on one as on 448 operations of products.
"""

import re

from jaxtune.core import paths
from jaxtune.models.attention_path import USUAL, AttentionCost
from jaxtune.models.design import Design

_SCORE = 448  # operations


def attention_cost(design: Design) -> AttentionCost:
    """The costs of a model, from the matrices of its layers and its heads."""
    config, names = design.source.config, design.source.family.names
    found = [
        (int(place[1]), leaf.shape)
        for name, leaf in paths.flatten(design.shapes).items()
        if (place := re.search(names.layers, name)) and len(leaf.shape) == 2
    ]
    heads = _first(config, "num_attention_heads", "n_heads", "n_head")
    if not found or not heads:
        return USUAL
    layers = max(layer for layer, _ in found) + 1
    weights = sum(rows * columns for _, (rows, columns) in found) / layers
    width = _first(config, "hidden_size", "dim", "n_embd")
    window = getattr(config, "local_attention", None)
    is_global = getattr(config, "is_global", lambda layer: True)
    return AttentionCost(
        (4 * width + _SCORE * heads) / (2 * weights),
        None if window is None else window // 2,
        sum(not is_global(layer) for layer in range(layers)) / layers,
    )


def _first(config: object, *names: str) -> int:
    return next((getattr(config, name) for name in names if hasattr(config, name)), 0)
