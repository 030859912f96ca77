"""Tiny models of every family and head, and what transformers on torch gives for some inputs."""

import re
from pathlib import Path

import numpy as np

from jaxtune.models.pretrained import load_pretrained

ROOT = Path(__file__).parent / "golden" / "families"
HEADS = {"untied": "causal_lm"}
IMAGES = ("vit", "dinov2", "dinov2_with_registers", "resnet", "convnext")
"""Families of which every case is of an image."""
CASES = sorted(
    path.name for path in ROOT.iterdir() if not re.match("electra|.*-choice$", path.name)
)


def head_of(case):
    family, _, word = case.rpartition("-")
    if word in ("sequence", "token", "span", "masked_lm", "causal_lm", "image", "choice"):
        return word
    return HEADS.get(word, "image" if family in IMAGES else "sequence")


def load(case):
    head = head_of(case)
    return load_pretrained(ROOT / case, head=head, num_outputs=2 if head == "span" else None)


def inputs_of(reference):
    if "pixel_values" in reference:
        return {"pixel_values": reference["pixel_values"]}
    names = ("input_ids", "attention_mask", "token_type_ids")
    found = {name: reference[name].astype(np.int64) for name in names if name in reference}
    return {"token_type_ids": np.zeros_like(found["input_ids"])} | found


def worst(found, reference):
    """The largest difference of a real token, and the largest output."""
    differences, scale = [], 1.0
    for name, values in found.items():
        wanted, real = reference[name], 1.0
        if values.ndim == 3 or name != "logits":
            real = reference["attention_mask"].reshape(*values.shape[:2], *[1] * (values.ndim - 2))
        assert values.dtype == np.float32
        assert values.shape == wanted.shape
        differences.append(np.abs((values - wanted) * real).max())
        scale = max(scale, np.abs(wanted * real).max())
    return max(differences), scale
