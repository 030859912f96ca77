"""What the audit says about a strategy, against counts made another way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.analysis import audit as audit_module
from jaxtune.analysis.audit import HEADER, Updates, audit, audit_rows, flops_line
from jaxtune.analysis.flops import step_flops
from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.models import registry
from jaxtune.models.families import bert
from jaxtune.training.losses import cross_entropy
from jaxtune.tuning import injection, partition
from jaxtune.tuning.rates import rate_multipliers
from jaxtune.tuning.registry import make_strategy

LAYERS = 3
CONFIG = bert.BertConfig(
    vocab_size=90,
    hidden_size=64,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=48,
)
MODULE = bert.BERT.make_module("sequence", CONFIG, 4, jnp.float32)
APPLY = registry.make_apply(MODULE)
RATE, DECAY = 1e-3, 0.01
UPDATES = Updates(RATE, DECAY)
STRATEGIES = {
    "full": {},
    "head": {},
    "last_layers": {"num_layers": 1},
    "bitfit": {},
    "lora": {"rank": 4},
    "lora+layernorm": {"rank": 4},
}


def batch(rows=4, tokens=16):
    ints = jax.ShapeDtypeStruct((rows, tokens), jnp.int32)
    return {
        "input_ids": ints,
        "attention_mask": ints,
        "token_type_ids": ints,
        "labels": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }


@functools.cache
def shapes():
    return registry.parameter_shapes(MODULE)


def prepare(name):
    """(apply_fn, params, labels) of a strategy."""
    strategy = make_strategy(name, STRATEGIES[name])
    params = jax.eval_shape(
        lambda p, k: injection.extend(strategy, p, k), shapes(), jax.random.key(0)
    )
    return injection.adapt(strategy, APPLY), params, partition.label(strategy, params)


def audited(name, decay=DECAY):
    """One of both kinds is kept: with the operations counted, and without."""
    return kept(name, decay, audit_module.step_flops is step_flops)


@functools.cache
def kept(name, decay, counts):
    del counts
    apply_fn, params, labels = prepare(name)
    return audit(
        apply_fn,
        cross_entropy,
        params,
        labels,
        batch(),
        Updates(RATE, decay),
        base=(APPLY, shapes()),
    )


def groups(found):
    return {group.name: group for group in found.groups}


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_groups_add_up_to_the_tree(name):
    _, params, labels = prepare(name)
    found = audited(name).groups
    assert sum(group.parameters for group in found) == trees.count(params)
    assert sum(group.num_bytes for group in found) == trees.num_bytes(params)
    trainable, frozen = partition.partition(params, labels)
    by_name = groups(audited(name))
    assert sum(g.parameters for g in found if g.learning_rate) == trees.count(trainable)
    if name == "full":
        assert "frozen" not in by_name
    else:
        assert by_name["frozen"].parameters == trees.count(frozen)
        assert by_name["frozen"][3:] == (0, None, None)
    for group in found:
        if group.name != "frozen":
            assert group.optimizer_bytes == 8 * group.parameters
            assert group.learning_rate == RATE
            assert group.weight_decay == (None if "not decayed" in group.name else DECAY)


def test_sgd_keeps_four_bytes_for_each_parameter():
    apply_fn, params, labels = prepare("head")
    found = audit(
        apply_fn, cross_entropy, params, labels, batch(),
        Updates(RATE, DECAY, "sgd"),
    )  # fmt: skip
    assert [g.optimizer_bytes for g in found.groups] == [0, 4 * 4, 4 * 64 * 4]


def test_groups_are_told_apart_by_label_and_decay_in_the_order_of_the_tree():
    names = list(groups(audited("lora")))
    assert names == ["frozen", "lora", "head, not decayed", "head"]
    assert list(groups(audited("full"))) == ["trainable, not decayed", "trainable"]
    found = groups(audited("lora"))
    assert found["head, not decayed"].parameters == 4
    assert found["head"].parameters == 64 * 4
    assert found["lora"].parameters == LAYERS * 2 * (64 * 4 + 4 * 64)


def test_without_decay_there_is_one_group_a_label():
    found = audited("full", decay=0.0).groups
    assert [(group.name, group.weight_decay) for group in found] == [("trainable", None)]


@pytest.mark.usefixtures("counted_operations")
def test_layer_wise_rates_give_a_group_a_layer():
    _, params, labels = prepare("full")
    found = audit(
        APPLY,
        cross_entropy,
        params,
        labels,
        batch(),
        Updates(RATE, 0.0, multipliers=rate_multipliers(params, layer_decay=0.5)),
    )
    expected = {
        f"trainable bert/encoder/layer/{i}": RATE * 0.5 ** (LAYERS - i) for i in range(LAYERS)
    }
    expected |= {"trainable": RATE, "trainable bert/embeddings": RATE * 0.5 ** (LAYERS + 1)}
    assert {group.name: group.learning_rate for group in found.groups} == pytest.approx(expected)
    sizes = {group.parameters for group in found.groups if "layer/" in group.name}
    assert len(sizes) == 1  # of every layer
    assert found.flops == found.full_flops


@pytest.mark.usefixtures("counted_operations")
def test_shares_of_a_full_step():
    names = ("full", "head", "last_layers", "lora")
    share = {name: audited(name).flops / audited(name).full_flops for name in names}
    assert share["full"] == 1.0
    assert share["head"] < 0.4
    assert share["head"] < share["last_layers"] < share["lora"] < 1.0
    assert len({audited(name).full_flops for name in names}) == 1


@pytest.mark.usefixtures("counted_operations")
def test_arrays_are_as_good_as_shapes():
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes())
    arrays = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in batch().items()}
    labels = partition.label(make_strategy("head", {}), params)
    found = audit(APPLY, cross_entropy, params, labels, arrays, UPDATES)
    assert found == audited("head")


@pytest.mark.usefixtures("counted_operations")
def test_a_persons_own_function_and_tree():
    params = {"a": {"w": jnp.ones((8, 8))}, "w": jnp.ones((8, 3), jnp.bfloat16)}
    rows = {"x": jnp.ones((5, 8)), "labels": jnp.zeros(5, jnp.int32), "weight": jnp.ones(5)}

    def apply_fn(params, batch, *, key, train):
        return jnp.tanh(batch["x"] @ params["a"]["w"]) @ params["w"].astype(jnp.float32)

    labels = {"a": {"w": "first"}, "w": "second"}
    found = audit(apply_fn, cross_entropy, params, labels, rows, Updates(0.1, 0.0))
    assert found.groups == (
        ("first", 64, 256, 512, 0.1, None),
        ("second", 24, 48, 96, 0.1, None),  # `a/w` ends with `w` too, and is not counted here
    )
    assert found.flops == found.full_flops > 2 * 5 * 8 * 8 * 2


@pytest.mark.usefixtures("counted_operations")
def test_a_backend_that_does_not_count_gives_unknown(monkeypatch):
    expected = audited("head").groups  # kept for other tests, so it must come before the patch
    for result in (None, [], {}):
        monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self, r=result: r)
        _, params, labels = prepare("head")
        found = audit(APPLY, cross_entropy, params, labels, batch(), UPDATES)
        assert found.flops is None
        assert found.full_flops is None
        assert "unknown" in flops_line(None, None, "4 x 16 tokens")
        assert found.groups == expected


@pytest.mark.usefixtures("counted_operations")
def test_no_cpu_beside_the_accelerator_is_no_error(monkeypatch):
    expected = audited("head").flops

    def devices(backend=None):
        raise RuntimeError(f"unknown backend {backend}")

    monkeypatch.setattr(jax, "devices", devices)
    _, params, labels = prepare("head")
    found = audit(APPLY, cross_entropy, params, labels, batch(), UPDATES)
    assert found.flops == expected


def test_a_rule_that_matches_nothing_names_the_nearest():
    strategy = make_strategy("rules", {"rules": ("clasifier/=trainable", ".*=frozen")})
    with pytest.raises(UserError, match=r"matches none of the .* Nearest: classifier/"):
        partition.label(strategy, shapes())


@pytest.mark.parametrize("which", ["labels", "multipliers"])
def test_trees_that_do_not_belong_together(which):
    apply_fn, params, labels = prepare("lora")
    given = {"labels": labels, "multipliers": jax.tree.map(lambda _: 1.0, params)}
    given[which] = jax.tree.map(lambda _: "x", shapes())
    updates = Updates(RATE, DECAY, multipliers=given["multipliers"])
    with pytest.raises(UserError, match=rf"{which} has \d+ leaves.*lora_a"):
        audit(apply_fn, cross_entropy, params, given["labels"], batch(), updates)


def test_rows_and_the_line_below_them():
    rows = audit_rows(audited("lora").groups)
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[0][0] == "frozen"
    assert rows[0][3:] == ("0 B", "-", "-")
    assert rows[1] == ("lora", "3,072", "12.3 kB", "24.6 kB", "0.001", "0.01")
    assert rows[2] == ("head, not decayed", "4", "16 B", "32 B", "0.001", "-")
    line = flops_line(69.1e9, 102.7e9, "32 x 48 tokens")
    assert line == (
        "one step costs 67% of the floating-point operations of a full one"
        " (69.1 GFLOP of 102.7 GFLOP, 32 x 48 tokens)"
    )
