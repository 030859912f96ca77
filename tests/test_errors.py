"""Messages, and the nearest name: in other letters, as others call it, most alike, or a word."""

import pytest

from jaxtune.core.errors import UserError, nearest
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


def test_a_message_quotes_what_no_terminal_obeys():
    """Escape codes could clear a screen, and one message is one line."""
    text = str(UserError("found 'a\x1b[2J\nb\ud83d\u202e' 日本 é"))
    assert text == r"found 'a\x1b[2J\nb\ud83d\u202e' 日本 é"


def test_a_message_is_short_whatever_it_quotes():
    text = str(UserError(f"data.csv line 7: found {'x' * 10_000}, but expected a number. Mend it."))
    assert len(text) < 1000
    assert text.startswith("data.csv line 7: found xxx")
    assert text.endswith("xxx, but expected a number. Mend it.")


@pytest.mark.parametrize("quoted", ["\t" * 5000, "\x1b" * 700, "é\u202e" * 400, "a" * 10_000])
def test_a_message_is_short_once_what_it_quotes_is_escaped(quoted):
    told = str(UserError(f"found {quoted}: expected something else."))
    assert len(told) <= 910
    assert told.isprintable()
    assert told.startswith("found ")
    assert told.endswith("expected something else.")
