"""What the names of a model family are to each strategy: the defaults of its fields."""

import re
from typing import Any

from jaxtune.models.family import Family, Head


def family_fields(
    family: Family, head: Head, config: Any, placement: str | None = None
) -> dict[str, dict[str, Any]]:
    """By the strategy's name and field, as `registry.make_strategy` takes them.

    Args:
      family: has the names.
      head: of the model; the last of its modules is what strategies call the head.
      config: of the model, which says whether it has that module.
      placement: of bottleneck adapters.
    """
    n = family.names
    headless = not head.modules or head.is_tied(config)
    top = {"head": None if headless else rf"^{re.escape(head.modules[-1])}/"}
    depth = {"layers": n.layers, "below": n.below}
    fields: dict[str, dict[str, Any]] = {
        "head": top,
        "bitfit": top,
        "layernorm": {"norms": n.norms} | top,
        "embeddings_frozen": {"below": n.below},
        "last_layers": depth,
        "first_layers_frozen": depth,
        "gradual": depth,
    }
    m = n.matrices
    targets: dict[str, tuple[str, ...]] = dict.fromkeys(("lora", "ia3", "adapter", "prefix"), ())
    scaled: tuple[str, ...] = ()
    if m is not None:
        after = (m.attention_output,) if placement == "houlsby" else ()
        targets = {
            "lora": (m.queries, m.values),
            "ia3": (m.keys, m.values),
            "adapter": (*after, m.feedforward_output),
            "prefix": (m.keys,),
        }
        scaled = (m.feedforward_output,)
    # One regex may stand for several matrices.
    fields |= {k: {"targets": tuple(dict.fromkeys(v))} | top for k, v in targets.items()}
    fields["ia3"]["feedforward_targets"] = scaled
    return fields
