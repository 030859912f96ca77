"""What attention and compiling cost, in what the rest of the model does for a token.

Attention: from counts of operations, and from what a score costs that is no product: measured on a
CPU, where a step of training with dropout spends as long on one as on 448 operations of products.
"""

import re

from jaxtune.core import paths
from jaxtune.models.attention_path import USUAL, AttentionCost
from jaxtune.models.design import Design

_SCORE = 448  # operations
_COMPILED = {"cpu": (0.7, 1e11)}
_ELSEWHERE = (2.8, 1e14)
"""Seconds in which a layer and its gradient are traced and compiled, and operations of a second of
training: of two cores; and of an accelerator, roughly. Only whether a program is worth some steps
or thousands of them is to be told by these."""


def attention_cost(design: Design) -> AttentionCost:
    """The costs of a model, from the matrices of its layers and its heads."""
    config = design.source.config
    layers, weights = _layers(design)
    heads = _first(config, "num_attention_heads", "n_heads", "n_head")
    if not layers or not heads:
        return USUAL
    width = _first(config, "hidden_size", "dim", "n_embd")
    window = getattr(config, "local_attention", None)
    is_global = getattr(config, "is_global", lambda layer: True)
    return AttentionCost(
        (4 * width + _SCORE * heads) / (2 * weights),
        None if window is None else window // 2,
        sum(not is_global(layer) for layer in range(layers)) / layers,
    )


def program_cost(design: Design) -> float:
    """What compiling for one more shape of batches costs: tokens of it that could be computed.

    Of training and of evaluation, both of whose programs cost a third of it, alike.

    Args:
      design: of the model, with the device that it is for.
    """
    layers, weights = _layers(design)
    if not layers:
        return 0.0
    seconds, operations = _COMPILED.get(design.device.platform, _ELSEWHERE)
    return seconds * operations / (6 * weights)


def _layers(design: Design) -> tuple[int, float]:
    """How many layers a model has, and the weights in the matrices of one."""
    names = design.source.family.names
    found = [
        (int(place[1]), leaf.shape)
        for name, leaf in paths.flatten(design.shapes).items()
        if (place := re.search(names.layers, name)) and len(leaf.shape) == 2
    ]
    layers = 1 + max((layer for layer, _ in found), default=-1)
    return layers, sum(rows * columns for _, (rows, columns) in found) / max(layers, 1)


def _first(config: object, *names: str) -> int:
    return next((getattr(config, name) for name in names if hasattr(config, name)), 0)
