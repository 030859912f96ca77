"""What a person may type of a sweep."""

import pytest

from jaxtune.core.errors import UserError
from jaxtune.run.config import settings_of
from jaxtune.studies.space import Choices, Range, read_space

SETTINGS = settings_of({"model": {"path": "model"}, "data": {"path": "data"}})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("optimizer.learning_rate", "1e-5..1e-3", Range(1e-5, 1e-3, log=True, whole=False)),
        ("optimizer.learning_rate", "1e-3..5e-3", Range(1e-3, 5e-3, log=False, whole=False)),
        ("optimizer.weight_decay", "0..0.1", Range(0.0, 0.1, log=False, whole=False)),
        ("train.num_epochs", "2..80", Range(2, 80, log=False, whole=True)),
        ("optimizer.schedule", "linear|cosine", Choices(("linear", "cosine"))),
        ("train.batch_size", "16|32", Choices(("16", "32"))),
    ],
)
def test_a_range_or_choices(name, text, expected):
    assert read_space({name: text}, SETTINGS)[name] == expected


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("optimizer.learning_rat", "1..2", "Nearest: learning_rate"),
        ("optimizer.learning_rate", "1e-3", r"expected LOW\.\.HIGH"),
        ("optimizer.learning_rate", "1e-3..1e-5", "LOW below HIGH"),
        ("optimizer.learning_rate", "a..b", "two numbers"),
        ("optimizer.learning_rate", "-1..1", "learning_rate is -1.0: expected above 0"),
        ("train.num_epochs", "1.5..2", "two whole numbers"),
        ("train.num_epochs", "0..2", "num_epochs is 0: expected at least 1"),
        ("optimizer.schedule", "linear..cosine", "is no number"),
        ("optimizer.schedule", "linear|cosin", "Nearest: cosine"),
        ("optimizer.schedule", "linear|linear", "different values"),
        ("seed", "0..9", "--seeds=K"),
        ("data.path", "a|b", "other data"),
    ],
)
def test_what_is_no_space_is_refused(name, text, told):
    with pytest.raises(UserError, match=told):
        read_space({name: text}, SETTINGS)


def test_where_nothing_is_typed_there_is_a_default():
    found = read_space({}, SETTINGS)
    assert found["optimizer.learning_rate"] == Range(5e-6, 5e-4, log=True, whole=False)
    assert found["train.num_epochs"] == Range(1, 6, log=False, whole=True)
    assert "optimizer.layer_decay" in found
