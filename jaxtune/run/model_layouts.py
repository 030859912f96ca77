"""How batches are laid out for one model: what it bounds, and what its attention costs."""

from collections.abc import Callable
from functools import partial

from jaxtune.data.batching.layout import Kind, Layout, choose_layout
from jaxtune.models.design import Design
from jaxtune.models.token_costs import attention_cost


def layouts_for(design: Design, kind: Kind) -> Callable[..., Layout]:
    """`choose_layout` of one kind for a model: what is left are lengths, batch size and use.

    Args:
      design: of the model, whose longest input and attention are taken.
      kind: as of `choose_layout`.
    """
    limit = getattr(design.source.config, "max_length", 1)
    return partial(choose_layout, kind, limit=limit, attention=attention_cost(design))
