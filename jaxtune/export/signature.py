"""What an exported model takes and gives, in the names of transformers."""

from typing import NamedTuple

from jaxtune.models.design import Design, embedding_width
from jaxtune.models.pooling import EMBEDDING

Axes = tuple[int | str, ...]
"""Sizes of a tensor; the name of one that may be any."""

_TOKENS: Axes = ("batch", "length")


class Signature(NamedTuple):
    """Names and sizes of what goes in and comes out.

    Attributes:
      inputs: `input_ids`, `attention_mask` (0 at padding) and, where the model has several,
        `token_type_ids`, whole numbers; or `pixel_values`, float32, as transformers' image
        processors give them.
      outputs: `logits`; or `start_logits` and `end_logits`; or `embeddings`. float32.
    """

    inputs: dict[str, Axes]
    outputs: dict[str, Axes]

    @property
    def is_image(self) -> bool:
        """Whether images go in."""
        return "pixel_values" in self.inputs


def signature_of(design: Design) -> Signature:
    """Of a model with its head."""
    outputs: dict[str, Axes]
    if design.head_name == "span":
        outputs = dict.fromkeys(("start_logits", "end_logits"), _TOKENS)
    elif design.head_name == EMBEDDING:
        outputs = {"embeddings": (*_TOKENS[:1], embedding_width(design))}
    else:
        per_token = design.head_name in ("token", "masked_lm", "causal_lm")
        before = _TOKENS if per_token else _TOKENS[:1]
        outputs = {"logits": (*before, _num_outputs(design))}
    return Signature(_inputs(design.source.config), outputs)


def _inputs(config: object) -> dict[str, Axes]:
    if not hasattr(config, "max_length"):
        channels = getattr(config, "num_channels")  # noqa: B009
        side = getattr(config, "image_size", None)
        sides = ("height", "width") if side is None else (side, side)
        return {"pixel_values": ("batch", channels, *sides)}
    names = ["input_ids", "attention_mask"]
    if getattr(config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return dict.fromkeys(names, _TOKENS)


def _num_outputs(design: Design) -> int:
    is_language = design.head_name in ("masked_lm", "causal_lm")
    return design.source.config.vocab_size if is_language else design.outputs.size
