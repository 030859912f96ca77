import dataclasses

import jax
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.tuning import partition
from jaxtune.tuning.partition import FROZEN, TRAINABLE
from jaxtune.tuning.registry import STRATEGIES, make_strategy
from jaxtune.tuning.selective import (
    BitFit,
    EmbeddingsFrozen,
    FirstLayersFrozen,
    Full,
    Head,
    LastLayers,
    LayerNorm,
    Rules,
)

LEAF = jax.ShapeDtypeStruct((2, 3), "float32")


def bert_tree(num_layers):
    """Names as in BERT; of each part one leaf, with a trap for patterns that search too widely."""
    names = ["bert/embeddings/LayerNorm/scale", "bert/embeddings/word_embeddings/embedding"]
    for i in range(num_layers):
        names += [f"bert/encoder/layer/{i}/attention/self/query/kernel"]
        names += [f"bert/encoder/layer/{i}/output/LayerNorm/bias"]
    names += ["bert/pooler/dense/kernel", "classifier/bias", "classifier/kernel"]
    return paths.unflatten(dict.fromkeys(names, LEAF))


def trained(strategy, tree):
    labels = partition.label(strategy, tree)
    assert jax.tree.structure(labels) == jax.tree.structure(tree)
    assert set(jax.tree.leaves(labels)) <= {FROZEN, TRAINABLE}
    return {name for name, label in paths.flatten(labels).items() if label != FROZEN}


def test_full_trains_every_leaf():
    tree = bert_tree(3)
    assert trained(Full(), tree) == set(paths.leaf_names(tree))


# Eleven layers, because as strings 10 comes before 2.
@pytest.mark.parametrize("num_layers", [0, 1, 2, 10, 11])
def test_last_layers_trains_the_top_layers_pooler_and_head(num_layers):
    tree = bert_tree(11)
    top = [f"/layer/{i}/" for i in range(11 - num_layers, 11)]
    expected = {
        name
        for name in paths.leaf_names(tree)
        if name.startswith(("bert/pooler", "classifier")) or any(part in name for part in top)
    }
    assert len(expected) == 3 + 2 * num_layers
    assert trained(LastLayers(num_layers), tree) == expected


def test_last_layers_takes_patterns_for_other_names():
    tree = {
        "embed": {"table": LEAF},
        "blocks_0": {"w": LEAF},
        "blocks_1": {"w": LEAF},
        "out": {"w": LEAF},
    }
    strategy = LastLayers(1, layers=r"^blocks_(\d+)/", below=r"^embed/")
    assert trained(strategy, tree) == {"blocks_1/w", "out/w"}


@pytest.mark.parametrize("strategy", [LastLayers, FirstLayersFrozen])
def test_nothing_need_lie_below_the_layers(strategy):
    """Of a list of layers the lower ones are frozen; without `below` it says what to set."""
    tree = [{"w": LEAF}, {"w": LEAF}, {"w": LEAF}, LEAF]
    wanted = {"2/w", "3"} if strategy is LastLayers else {"1/w", "2/w", "3"}
    assert trained(strategy(1, layers=r"^(\d)/", below=None), tree) == wanted
    with pytest.raises(UserError, match="Set `below` to a regex for this model's names, or None"):
        strategy(1, layers=r"^(\d)/").labels(tree)


@pytest.mark.parametrize("num_layers", [-1, 4])
def test_last_layers_refuses_a_number_out_of_range(num_layers):
    message = f"num_layers is {num_layers}, but the model has 3 layers: expected 0 to 3"
    with pytest.raises(UserError, match=message):
        LastLayers(num_layers).labels(bert_tree(3))


def test_last_layers_refuses_a_tree_without_layers():
    with pytest.raises(UserError, match=r"no parameter matches.*Set `layers` to a regex"):
        LastLayers(1).labels({"blocks": {"0": {"w": LEAF}}})


def test_label_refuses_a_strategy_that_freezes_everything():
    everything = LastLayers(0, below=".")
    with pytest.raises(UserError, match=r"LastLayers\(num_layers=0.*nothing to train"):
        partition.label(everything, bert_tree(2))


def test_trainable_labels_have_the_structure_of_the_trainable_parameters():
    tree = bert_tree(2)
    labels = partition.label(LastLayers(1), tree)
    params, frozen = partition.partition(tree, labels)
    assert jax.tree.structure(partition.trainable_labels(labels)) == jax.tree.structure(params)
    assert set(paths.leaf_names(params)) | set(paths.leaf_names(frozen)) == set(
        paths.leaf_names(tree)
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_are_frozen_data(name):
    needed = {"num_layers": 2, "rules": (".*=trainable",)}
    known = {field.name for field in dataclasses.fields(STRATEGIES[name])}
    fields = {key: value for key, value in needed.items() if key in known}
    strategy = make_strategy(name, fields)
    assert strategy == make_strategy(name, fields)
    assert hash(strategy) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        strategy.num_layers = 3


def test_make_strategy_builds_from_the_fields_that_are_set():
    assert make_strategy("full", {"num_layers": None}) == Full()
    assert make_strategy("last_layers", {"num_layers": 0}) == LastLayers(0)
    assert make_strategy("last_layers", {"num_layers": 2, "below": "x"}) == LastLayers(2, below="x")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "last_layer",
            {},
            r"tuning.name is 'last_layer'.*full, head, last_layers.*Nearest: last_layers",
        ),
        ("last_layers", {}, r"config.tuning.num_layers must be set.*'last_layers'"),
        ("last_layers", {"num_layers": None}, "num_layers must be set"),
        (
            "full",
            {"num_layers": 2},
            r"num_layers is set, but the strategy 'full' has no num_layers",
        ),
        ("full", {"num_layers": 0}, "num_layers is set"),
    ],
)
def test_make_strategy_refuses(name, fields, message):
    with pytest.raises(UserError, match=message):
        make_strategy(name, fields)


def named(tree, *parts):
    return {name for name in paths.leaf_names(tree) if any(part in name for part in parts)}


def test_head_trains_the_classifier_alone():
    tree = bert_tree(3)
    assert trained(Head(), tree) == {"classifier/bias", "classifier/kernel"}


def test_bitfit_trains_biases_and_head():
    tree = bert_tree(3)
    biases = {name for name in paths.leaf_names(tree) if name.endswith("/bias")}
    assert trained(BitFit(), tree) == biases | {"classifier/kernel"}


def test_layernorm_trains_norms_and_head():
    tree = bert_tree(3)
    assert trained(LayerNorm(), tree) == named(tree, "LayerNorm", "classifier")


def test_embeddings_frozen_trains_all_else():
    tree = bert_tree(3)
    everything = set(paths.leaf_names(tree))
    assert trained(EmbeddingsFrozen(), tree) == everything - named(tree, "embeddings")


@pytest.mark.parametrize("num_layers", [0, 1, 2, 10, 11])
def test_first_layers_frozen_is_last_layers_counted_from_the_input(num_layers):
    tree = bert_tree(11)
    expected = trained(LastLayers(11 - num_layers), tree)
    assert trained(FirstLayersFrozen(num_layers), tree) == expected


def test_rules_take_the_first_match():
    tree = bert_tree(3)
    rules = Rules(
        ("classifier/bias=frozen", "classifier=trainable", "layer/2/=trainable", "=frozen")
    )
    assert trained(rules, tree) == named(tree, "layer/2/", "classifier/kernel")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("classifier",), r"found 'classifier', expected REGEX=frozen or REGEX=trainable"),
        (("classifier=thawed",), r"found 'classifier=thawed'"),
        (("clasifier=trainable", ".*=frozen"), r"matches none of the .* parameters"),
        (("classifier=trainable",), r"no rule matches the parameter 'bert/embeddings"),
        (("[=frozen",), r"is not a regular expression"),
    ],
)
def test_wrong_rules(rules, message):
    with pytest.raises(UserError, match=message):
        partition.label(Rules(rules), bert_tree(3))


@pytest.mark.parametrize(
    "strategy",
    [Head("nothing"), BitFit(head="nothing"), LayerNorm(norms="nothing"), EmbeddingsFrozen("none")],
)
def test_a_regex_that_matches_nothing_is_an_error(strategy):
    with pytest.raises(UserError, match="matches none of the"):
        partition.label(strategy, bert_tree(3))


@pytest.mark.parametrize("layers", [r"layer/\d+/", r"(layer)/\d+/"])
def test_a_regex_without_the_index_is_an_error(layers):
    with pytest.raises(UserError, match="has no group for a layer's index"):
        partition.label(FirstLayersFrozen(1, layers=layers), bert_tree(3))
