import jax
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.tuning.rates import rate_multipliers

LEAF = jax.ShapeDtypeStruct((2,), "float32")
NAMES = ["embeddings/w", "layer/0/w", "layer/1/lora_a", "layer/1/w", "head/bias", "head/w"]
TREE = paths.unflatten(dict.fromkeys(NAMES, LEAF))


def test_each_layer_lower_has_the_rate_times_the_decay():
    found = paths.flatten(rate_multipliers(TREE, 0.5))
    assert found == {
        "embeddings/w": 0.125,
        "layer/0/w": 0.25,
        "layer/1/lora_a": 0.5,
        "layer/1/w": 0.5,
        "head/bias": 1.0,
        "head/w": 1.0,
    }


def test_the_first_rule_that_matches_is_multiplied_on_it():
    found = paths.flatten(rate_multipliers(TREE, 0.5, ("lora=16", "head/w=3", "/w=2")))
    assert found == {
        "embeddings/w": 0.25,
        "layer/0/w": 0.5,
        "layer/1/lora_a": 8.0,
        "layer/1/w": 1.0,
        "head/bias": 1.0,
        "head/w": 3.0,
    }


def test_without_anything_every_rate_is_one():
    assert set(jax.tree.leaves(rate_multipliers({"any": LEAF, "names": LEAF}))) == {1.0}


@pytest.mark.parametrize(
    "rule", ["head", "head=", "head=x", "head=0", "head=-1", "head=nan", "=inf"]
)
def test_a_malformed_rule(rule):
    with pytest.raises(UserError, match=r"expected REGEX=FACTOR with a positive factor"):
        rate_multipliers(TREE, None, (rule,))


def test_a_rule_that_matches_nothing():
    with pytest.raises(UserError, match=r"'hed/' matches none of the 6 parameters"):
        rate_multipliers(TREE, None, ("hed/=2",))


def test_a_decay_without_layers():
    with pytest.raises(UserError, match="no parameter matches"):
        rate_multipliers({"a": LEAF}, 0.9)
