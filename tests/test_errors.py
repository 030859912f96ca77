"""The nearest name: in other letters, as others call it, most alike, or a word of it."""

import pytest

from jaxtune.core.errors import nearest
from jaxtune.tuning.registry import STRATEGIES


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("LoRA", STRATEGIES, "lora"),
        ("IA3", STRATEGIES, "ia3"),
        ("last-layers", STRATEGIES, "last_layers"),
        ("f1", ["accuracy", "macro_f1", "mcc", "loss"], "macro_f1"),
        ("lr", ["learning_rate", "layer_decay"], "learning_rate"),
        ("acuracy", ["accuracy", "macro_f1"], "accuracy"),
        ("sprot", ["Sport", "money"], "Sport"),
    ],
)
def test_nearest(name, known, expected):
    assert nearest(name, known, limit=1) == f" Nearest: {expected}."


def test_nothing_is_near():
    assert nearest("xyzzy", ["accuracy", "loss"]) == ""
    assert nearest("lr", ["accuracy", "loss"]) == ""
