from typing import NamedTuple

import numpy as np
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError

TREE = {
    "embeddings": {"word": {"embedding": 0}},
    "layer": {"0": {"kernel": 1, "bias": 2}, "1": {"kernel": 3, "bias": 4}},
}
NAMES = [
    "embeddings/word/embedding",
    "layer/0/bias",
    "layer/0/kernel",
    "layer/1/bias",
    "layer/1/kernel",
]


class Pair(NamedTuple):
    left: int
    right: int


def test_leaf_names_follow_the_order_of_the_leaves():
    assert paths.leaf_names(TREE) == NAMES


def test_leaf_names_skip_holes():
    assert paths.leaf_names({"a": None, "b": {"c": 1, "d": None}}) == ["b/c"]


def test_leaf_names_of_tuples_and_lists_are_fields_and_indices():
    assert paths.leaf_names({"a": Pair(1, 2), "b": [3, 4]}) == ["a/left", "a/right", "b/0", "b/1"]


def test_flatten_keeps_every_leaf_under_its_name():
    assert paths.flatten(TREE) == dict(zip(NAMES, [0, 2, 1, 4, 3], strict=True))


def test_unflatten_is_the_inverse_of_flatten():
    assert paths.unflatten(paths.flatten(TREE)) == TREE
    assert paths.unflatten({}) == {}
    assert paths.unflatten({"a": 1}) == {"a": 1}


def test_unflatten_keeps_the_leaves_themselves():
    leaf = np.arange(3)
    assert paths.unflatten({"a/b": leaf})["a"]["b"] is leaf


def test_match_takes_the_first_rule_that_fits():
    rules = [(r"^layer/0/", "low"), (r"bias$", "bias"), (r".*", "rest")]
    found = paths.flatten(paths.match(rules, TREE))
    assert found == dict(zip(NAMES, ["rest", "low", "low", "bias", "rest"], strict=True))


def test_match_searches_anywhere_in_the_name():
    assert paths.match([("ord/", 1), ("0|1", 2)], TREE)["embeddings"]["word"]["embedding"] == 1


@pytest.mark.parametrize("value", [None, False, 0])
def test_match_gives_values_that_are_false(value):
    leaves = paths.match([(".", value)], {"a": 1})
    assert leaves == {"a": value}


def test_match_keeps_holes():
    assert paths.match([(".", 1)], {"a": None, "b": 5}) == {"a": None, "b": 1}


def test_match_refuses_a_rule_that_matches_nothing_and_names_the_nearest():
    with pytest.raises(UserError, match=r"'layer/0/kernal' matches none of the 5") as error:
        paths.match([("layer/0/kernal", 1), (".*", 2)], TREE)
    assert "Nearest: layer/0/kernel" in str(error.value)


def test_match_allows_a_rule_whose_leaves_an_earlier_one_took():
    assert paths.match([(".*", 1), ("bias", 2)], {"bias": 0}) == {"bias": 1}


def test_match_refuses_a_leaf_that_no_rule_matches():
    with pytest.raises(UserError, match="no rule matches the parameter 'layer/0/bias'") as error:
        paths.match([("kernel$", 1), ("embedding$", 2), ("layer/./bia$|word", 3)], TREE)
    assert "('.*', value)" in str(error.value)
    assert "Nearest: layer/./bia$|word" in str(error.value)


def test_match_refuses_a_bad_regex():
    with pytest.raises(UserError, match=r"'\(kernel' is not a regular expression"):
        paths.match([("(kernel", 1)], TREE)


def test_a_rule_that_matches_nothing_names_leaves_with_such_words():
    names = ["a/layer/0/query/kernel", "a/layer/0/query/bias", "a/layer/1/query/kernel", "b/kernel"]
    found = paths.nearest_names(r"querry/kernel$", names)
    assert found.startswith(" Nearest: a/layer/0/query/kernel")
    assert "a/layer/0/query/kernel" in paths.nearest_names(r"^layr/\d+/quer", names)
    assert paths.nearest_names("zzzz", names) == ""
