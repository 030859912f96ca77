import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.registry import parameter_shapes
from jaxtune.models.source import read_source
from jaxtune.training.optimizers import SGD, is_decayed, make_optimizer, make_schedule, named
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.registry import make_strategy

GOLDEN = Path(__file__).parent / "golden" / "families"
LABELS = {
    "low": {"kernel": None, "bias": None},
    "mid": {"kernel": "body", "bias": "body", "scale": "body"},
    "top": {"kernel": "head", "bias": "head"},
    "scale_shift": {"biases": "body"},
}
SHAPES = {
    "mid/kernel": (3, 2),
    "mid/bias": (2,),
    "mid/scale": (2,),
    "top/kernel": (2,),
    "top/bias": (),
    "scale_shift/biases": (2,),
}
DECAYED = {"mid/kernel", "top/kernel", "scale_shift/biases"}


def expected_rate(name, rate, n, w, k):
    if k < w:
        return rate * k / w
    if name == "linear":
        return rate * (n - k) / (n - w)
    if name == "cosine":
        return rate * (1 + math.cos(math.pi * (k - w) / (n - w))) / 2
    return rate


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("n", "w"), [(10, 0), (10, 3), (10, 9), (10, 10), (1, 0), (1, 1)])
def test_schedule_is_its_formula(name, n, w):
    schedule = make_schedule(name, 0.3, n, w)
    rates = [float(schedule(k)) for k in range(n)]
    expected = [expected_rate(name, 0.3, n, w, k) for k in range(n)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_schedule_that_ends_above_zero_is_its_formula(name):
    rates = [float(make_schedule(name, 0.3, 10, 3, 0.2)(k)) for k in range(15)]
    falling = [expected_rate(name, 0.3, 10, 3, min(k, 10)) for k in range(15)]
    expected = falling[:3] + [0.3 * 0.2 + 0.8 * rate for rate in falling[3:]]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedule_ends_at_zero_and_stays(name):
    schedule = make_schedule(name, 0.3, 10, 2)
    assert float(schedule(10)) == pytest.approx(0.0, abs=1e-7)
    assert float(schedule(15)) == pytest.approx(0.0, abs=1e-7)


def test_schedule_refuses_an_unknown_name():
    with pytest.raises(UserError, match=r"schedule is 'cosin': expected one of.*Nearest: cosine"):
        make_schedule("cosin", 0.1, 10, 0)


def random_trees(seed, count):
    """Flat float64 trees of the trainable leaves."""
    rng = np.random.default_rng(seed)
    return [{k: rng.normal(size=shape) for k, shape in SHAPES.items()} for _ in range(count)]


def with_holes(flat):
    tree = paths.unflatten({k: jnp.asarray(v, jnp.float32) for k, v in flat.items()})
    return tree | {"low": {"kernel": None, "bias": None}}


def run_optax(tx, params, gradients):
    tree = with_holes(params)
    state = tx.init(tree)
    update = jax.jit(tx.update)
    for g in gradients:
        updates, state = update(with_holes(g), state, tree)
        tree = optax.apply_updates(tree, updates)
    assert tree["low"] == {"kernel": None, "bias": None}
    return paths.flatten(tree)


def run_numpy(name, params, gradients, rates, *, decay, clip, scales, momentum=0.9):
    """The equations of the papers, in float64, leaf by leaf."""
    b1, b2, eps = 0.9, 0.999, 1e-8
    params = dict(params)
    m = {k: np.zeros_like(v) for k, v in params.items()}
    v = {k: np.zeros_like(x) for k, x in params.items()}
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        norm = math.sqrt(sum(float((x**2).sum()) for x in g.values()))
        factor = 1.0 if clip is None or norm < clip else clip / norm
        for k, p in params.items():
            x = g[k] * factor
            lam = decay if k in DECAYED else 0.0
            lr = rate * scales.get("head" if k.startswith("top/") else "body", 1.0)
            if name == "adamw":
                m[k] = b1 * m[k] + (1 - b1) * x
                v[k] = b2 * v[k] + (1 - b2) * x**2
                step = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
                params[k] = p - lr * (step + lam * p)
            else:
                m[k] = momentum * m[k] + x + lam * p
                params[k] = p - lr * m[k]
    return params


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("clip", [None, 2.5])
@pytest.mark.parametrize("scales", [{}, {"head": 5.0, "body": 0.5}])
def test_ten_steps_equal_the_papers_equations(name, clip, scales):
    schedule = make_schedule("linear", 0.05, 10, 3)
    rates = [expected_rate("linear", 0.05, 10, 3, k) for k in range(10)]
    params, *gradients = random_trees(0, 11)
    gradients[4] = {k: 0.1 * g for k, g in gradients[4].items()}  # one below the clip norm
    factors = jax.tree.map(lambda group: scales.get(group, 1.0), LABELS) if scales else None
    tx = make_optimizer(
        name, schedule, LABELS, weight_decay=0.3, clip_norm=clip, multipliers=factors
    )
    found = run_optax(tx, params, gradients)
    expected = run_numpy(name, params, gradients, rates, decay=0.3, clip=clip, scales=scales)
    assert found.keys() == expected.keys()
    for k, x in expected.items():
        np.testing.assert_allclose(found[k], x, rtol=2e-5, atol=2e-6, err_msg=k)


def test_the_clip_norm_is_that_of_all_groups_together():
    tx = make_optimizer(
        SGD(momentum=0.0), optax.constant_schedule(1.0), LABELS, weight_decay=0.0, clip_norm=0.5
    )
    params, gradient = random_trees(1, 2)
    updates, _ = tx.update(with_holes(gradient), tx.init(with_holes(params)), with_holes(params))
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("field", ["b1", "b2", "eps", "momentum", "decays"])
def test_every_constant_is_used(field):
    other = {"b1": 0.5, "b2": 0.9, "eps": 1.0, "momentum": 0.1}
    name = "sgd" if field == "momentum" else "adamw"
    params, *gradients = random_trees(2, 4)
    schedule = optax.constant_schedule(0.1)
    plain = make_optimizer(name, schedule, LABELS)
    fields = {"clip_norm": 3.0, field: other.get(field)}  # of others, clip_norm is none of its own
    if field == "decays":
        changed = make_optimizer(name, schedule, LABELS, decays=lambda name, leaf: leaf.ndim == 0)
    else:
        changed = make_optimizer(named(name, fields), schedule, LABELS)
    a, b = run_optax(plain, params, gradients), run_optax(changed, params, gradients)
    assert not np.array_equal(a["mid/kernel"], b["mid/kernel"])


def test_a_frozen_leaf_has_no_moment():
    tree = with_holes(random_trees(3, 1)[0])
    for name, copies in (("adamw", 2), ("sgd", 1)):
        state = make_optimizer(name, optax.constant_schedule(0.1), LABELS).init(tree)
        moments = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        size = sum(math.prod(shape) for shape in SHAPES.values())
        assert sum(x.size for x in moments) == copies * size


@pytest.mark.parametrize(
    ("name", "decayed"),
    [("a/bias", False), ("bias", False), ("LayerNorm/scale", False), ("a/kernel", True),
     ("bias/kernel", True), ("a/rescale", True), ("word_embeddings/embedding", True)],
)  # fmt: skip
def test_which_leaves_decay_by_default(name, decayed):
    params = {name: jnp.ones(2)}
    tx = make_optimizer("adamw", optax.constant_schedule(1.0), {name: "g"}, weight_decay=0.5)
    updates, _ = tx.update({name: jnp.zeros(2)}, tx.init(params), params)
    np.testing.assert_allclose(updates[name], -0.5 if decayed else 0.0)


VECTOR, MATRIX = jax.ShapeDtypeStruct((3,), "float32"), jax.ShapeDtypeStruct((3, 2), "float32")


@pytest.mark.parametrize(
    ("name", "leaf", "decayed"),
    [
        ("l1/bias/value", VECTOR, False),  # flax.nnx
        ("l1/bias/raw_value", VECTOR, False),
        ("layers/0/kernel/value", MATRIX, True),
        ("norm/scale/value", VECTOR, False),
        ("attention/value/kernel", MATRIX, True),
        ("norm/weight", VECTOR, False),  # Equinox, torch
        ("blocks/norm1/weight", MATRIX, False),  # of layers that are stacked
        ("encoder/LayerNorm/weight", VECTOR, False),
        ("input_layernorm/weight", VECTOR, False),
        ("norm_1/weight", VECTOR, False),
        ("bn2/weight", VECTOR, False),
        ("norm_out", VECTOR, False),
        ("before/weight", VECTOR, False),
        ("layers/0/weight", MATRIX, True),
        ("enormous/weight", MATRIX, True),
        ("normal/weight", MATRIX, True),
        ("h/ln_f/g", VECTOR, False),  # GPT-2's own names
        ("h/ln_f/b", VECTOR, False),
        ("h/mlp/c_fc/b", VECTOR, False),
        ("mlp/~/linear_0/b", VECTOR, False),  # Haiku
        ("mlp/~/linear_0/w", MATRIX, True),
        ("layer_norm/offset", VECTOR, False),
        ("bottleneck/b", MATRIX, True),
        ("b2", VECTOR, False),  # functions written by hand
        ("b_out", VECTOR, False),
        ("bias_2", VECTOR, False),
        ("w2", VECTOR, True),
        ("2/1", VECTOR, False),  # lists
        ("2/0", MATRIX, True),
        ("w", VECTOR, True),
        ("kernel_lora_a", MATRIX, True),
        ("kernel_ia3_output", VECTOR, False),
        ("kernel_dora_magnitude", VECTOR, False),
    ],
)
def test_which_leaves_of_other_libraries_decay(name, leaf, decayed):
    assert is_decayed(name, leaf) == decayed


@pytest.mark.parametrize(
    ("folder", "head"),
    [
        ("bert-masked_lm", "masked_lm"),
        ("roberta-sequence", "sequence"),
        ("modernbert-mean", "sequence"),
        ("modernbert-biases", "token"),
        ("distilbert-sequence", "sequence"),
        ("gpt2-untied", "causal_lm"),
        ("vit-odd", "image"),
        ("resnet-basic", "image"),
    ],
)
def test_of_jaxtunes_own_models_all_decays_but_biases_and_factors(folder, head):
    source = read_source(GOLDEN / folder)
    family, config = source.family, source.config
    shapes = parameter_shapes(family.make_module(head, config, 3, jnp.float32))
    defaults = family_fields(family, family.heads[head], config)
    adding = ("lora+ia3", "adapter", "prefix") if folder != "resnet-basic" else ()
    for name in adding:
        strategy = make_strategy(
            name, {"rank": 2, "use_dora": True} if "lora" in name else {}, defaults
        )
        shapes = jax.eval_shape(strategy.extend, shapes, jax.random.key(0))
    leaves = paths.flatten(shapes)
    ends = ("bias", "scale", "_ia3_input", "_ia3_output", "_dora_magnitude")
    assert {n for n, x in leaves.items() if not is_decayed(n, x)} == {
        n for n in leaves if n.rpartition("/")[2].endswith(ends)
    }
    assert len(leaves) > 20


def test_an_optimizer_for_other_parameters_is_an_error():
    tx = make_optimizer("adamw", optax.constant_schedule(0.1), LABELS)
    with pytest.raises(UserError, match=r"made for 6 trained leaves, and is given 1"):
        tx.init({"top": {"kernel": jnp.ones(2)}})


@pytest.mark.parametrize("scaler", [optax.lion, 0.1, None])
def test_optimizer_refuses_what_is_none(scaler):
    with pytest.raises(UserError, match=r"expected a name \(adamw, sgd\) or a transformation"):
        make_optimizer(scaler, optax.constant_schedule(0.1), LABELS)


def test_optimizer_refuses_an_unknown_name():
    with pytest.raises(UserError, match=r"name is 'adam': expected one of.*Nearest: adamw"):
        make_optimizer("adam", optax.constant_schedule(0.1), LABELS)
