"""Stages: which layers each trains, and the labels that let Adam's moments go on."""

import jax
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.tuning import partition
from jaxtune.tuning.gradual import Gradual

LEAF = jax.ShapeDtypeStruct((2,), "float32")
PARTS = ["embeddings", "layer/0", "layer/1", "layer/2", "layer/3", "layer/4", "head"]
TREE = paths.unflatten({f"model/{part}/w": LEAF for part in PARTS})


def table(strategy):
    """For each stage, the label of the embeddings, the layers from the lowest, the head."""
    short = {partition.FROZEN: "."}
    rows = []
    for labels in partition.stages(strategy, TREE):
        flat = paths.flatten(labels)
        names = [flat[f"model/{part}/w"] for part in PARTS]
        rows.append("".join(short.get(name, name.removeprefix("stage_")) for name in names))
    return rows


def test_ulmfit_adds_a_layer_at_a_time_and_last_the_embeddings():
    assert table(Gradual()) == [
        "......0",
        ".....10",
        "....210",
        "...3210",
        "..43210",
        ".543210",
        "6543210",
    ]


def test_ulmfit_adds_several_layers_at_a_time_and_then_what_is_left():
    assert table(Gradual(layers_per_stage=2)) == [
        "......0",
        "....110",
        "..22110",
        ".322110",
        "4322110",
    ]


def test_chain_thaw_trains_each_part_alone_and_then_all():
    assert table(Gradual("chain_thaw")) == [
        "......0",
        "1......",
        ".2.....",
        "..3....",
        "...4...",
        "....5..",
        ".....6.",
        "7777767",  # the top layer has been in training since stage 6
    ]


def test_chain_thaw_in_groups():
    assert table(Gradual("chain_thaw", layers_per_stage=3)) == [
        "......0",
        "1......",
        ".222...",
        "....33.",
        "4444334",
    ]


def test_the_labels_are_those_of_the_last_stage():
    strategy = Gradual("chain_thaw")
    assert strategy.labels(TREE) == strategy.stages(TREE)[-1]


def test_a_strategy_without_stages_has_one():
    from jaxtune.tuning.selective import Head

    strategy = Head("head/")
    assert partition.stages(strategy, TREE) == (strategy.labels(TREE),)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers_per_stage": 0}, "layers_per_stage is 0, but the model has 5 layers"),
        ({"layers_per_stage": 6}, "expected 1 to 5"),
        ({"stage_length": 0.0}, "stage_length is 0.0: expected a positive number"),
        ({"stage_length": float("nan")}, "expected a positive number"),
        ({"stage_by": "step", "stage_length": 1.5}, "a whole one for stages by step"),
        ({"stage_by": "plateau", "stage_length": 0.5}, "a whole one for stages by plateau"),
        ({"layers": "blocks/"}, "no parameter matches"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(UserError, match=message):
        partition.stages(Gradual(**fields), TREE)


@pytest.mark.parametrize(("parts", "below"), [(PARTS[1:], None), (PARTS[:-1], "embeddings/")])
def test_a_stage_that_would_train_nothing_new_is_left_out(parts, below):
    """A model may have nothing below its layers, or nothing above them."""
    tree = paths.unflatten({f"{i}/{part}/w": LEAF for i, part in enumerate(parts)})
    found = [
        "".join(label.removeprefix("stage_")[0] for label in jax.tree.leaves(labels))
        for labels in partition.stages(Gradual(below=below), tree)
    ]
    assert found == ["fffff0", "ffff10", "fff210", "ff3210", "f43210", "543210"]  # f is frozen


def test_chain_thaw_without_embeddings_starts_with_the_head():
    tree = {part: LEAF for part in ("layers/0/w", "layers/1/w", "top")}
    strategy = Gradual("chain_thaw", layers=r"layers/(\d)/", below=None)
    stages = [list(stage.values()) for stage in partition.stages(strategy, tree)]
    assert stages == [
        ["frozen", "frozen", "stage_0"],
        ["stage_1", "frozen", "frozen"],
        ["frozen", "stage_2", "frozen"],
        ["stage_3", "stage_2", "stage_3"],
    ]
