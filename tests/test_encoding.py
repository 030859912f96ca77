"""From rows to examples of every split: what is said of them."""

from types import SimpleNamespace

from jaxtune.data.sources.rows import Data, Rows
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples
from jaxtune.run.console import Report
from jaxtune.run.encoding import encode_splits
from jaxtune.settings.data import DataSettings

PAD, UNKNOWN, WORD = 0, 1, 5


def notes(ids, **special):
    """What is said of examples with these tokens."""
    found = Examples(tokens.join(ids, None, PAD))
    task = SimpleNamespace(data=SimpleNamespace(encode=lambda *_: (found, ["a note"])))
    ids_of = {"pad_token_id": PAD, "eos_token_id": 2, "unk_token_id": UNKNOWN} | special
    data = Data({"train": Rows([""] * len(ids), None)}, (), None, [])
    return encode_splits(
        task, data, SimpleNamespace(notes=(), **ids_of), DataSettings(), (), len, Report(quiet=True)
    )[1]


def test_many_unknown_tokens_are_said_with_their_share():
    many = [[2, UNKNOWN, UNKNOWN, WORD]] * 9
    first, second = notes(many)
    assert first == "train: a note"
    assert second.startswith("train: 18 of 36 tokens (50%) are unknown to the model's vocabulary")
    assert notes([[WORD] * 100, [UNKNOWN]]) == ["train: a note"]


def test_a_token_that_has_another_use_is_not_taken_for_unknown_words():
    assert notes([[UNKNOWN]], eos_token_id=UNKNOWN) == ["train: a note"]
    assert notes([[UNKNOWN]], unk_token_id=None) == ["train: a note"]
