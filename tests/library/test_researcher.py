"""What a researcher brings along: optimizers of optax, a loss, metrics, saliency, Equinox."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from jaxtune.analysis.audit import Updates, audit
from jaxtune.core import trees
from jaxtune.core.errors import UserError
from jaxtune.core.types import Mean, weighted_mean, weights
from jaxtune.models.pretrained import load_pretrained
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import SGD, make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition
from jaxtune.tuning.lora import Lora
from jaxtune.tuning.selective import Full, Rules

RNG = np.random.default_rng(0)
PARAMS = {
    "first": {"w": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32), "b": jnp.zeros(4)},
    "second": {"w": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), "b": jnp.ones(3)},
    "third": {"w": jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32), "b": jnp.ones(3)},
}
BATCH = {
    "x": RNG.normal(size=(6, 5)).astype(np.float32),
    "labels": RNG.integers(0, 3, 6).astype(np.int32),
}
UPPER = Rules(("^first=frozen", ".*=trainable"))
RATE, DECAY = 0.02, 0.1


def apply_fn(params, batch, *, key, train):
    x = batch["x"]
    for name in ("first", "second", "third"):
        x = jnp.tanh(x @ params[name]["w"] + params[name]["b"])
    return x


def mean_loss(upper, lower):
    logits = apply_fn(lower | upper, BATCH, key=None, train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["labels"]).mean()


def by_hand(tx, steps=3):
    """Of the upper layers, whose parameters alone the optimizer is given."""
    upper = {name: PARAMS[name] for name in ("second", "third")}
    state, update = tx.init(upper), jax.jit(tx.update)
    grad = jax.jit(jax.grad(mean_loss))
    for _ in range(steps):
        updates, state = update(grad(upper, PARAMS), state, upper)
        upper = optax.apply_updates(upper, updates)
    return upper, state


def by_jaxtune(tx, steps=3):
    labels = partition.label(UPPER, PARAMS)
    trainable, frozen = partition.partition(PARAMS, labels)
    state = init_state(trainable, tx, jax.random.key(0))
    step = jax.jit(make_train_step(apply_fn, cross_entropy, tx))
    for _ in range(steps):
        state, _ = step(state, frozen, BATCH)
    assert state.params["first"] == {"w": None, "b": None}
    return state


def close(found, wanted):
    for name, layer in wanted.items():
        for kind, x in layer.items():
            np.testing.assert_allclose(found[name][kind], x, rtol=1e-4, atol=1e-6)


def floats(state):
    return sum(x.size for x in jax.tree.leaves(state) if x.ndim)


def matrices(tree):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


def muon_and_adam():
    """Muon is for matrices; the rest has Adam, as in optax.contrib.muon."""

    def dimensions(tree):
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), tree)

    muon = contrib.scale_by_muon(weight_dimension_numbers=dimensions)
    return optax.partition({True: muon, False: optax.scale_by_adam()}, matrices)


def factored():
    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=2), optax.clip_by_block_rms(1.0)
    )


SCALERS = {
    "lion": (optax.scale_by_lion, 1),
    "muon": (muon_and_adam, None),
    "adafactor": (factored, None),
    "rms": (optax.scale_by_rms, 1),
    "plain": (optax.identity, 0),
}


@pytest.mark.parametrize("name", SCALERS)
def test_any_transformation_of_optax_is_an_optimizer_with_groups_and_decay(name):
    make, moments = SCALERS[name]
    labels = partition.label(UPPER, PARAMS)
    tx = make_optimizer(make(), RATE, labels, weight_decay=DECAY, clip_norm=0.5)
    state = by_jaxtune(tx)
    wanted, kept = by_hand(
        optax.chain(
            optax.clip_by_global_norm(0.5),
            make(),
            optax.add_decayed_weights(DECAY, matrices),
            optax.scale_by_learning_rate(RATE),
        )
    )
    close(state.params, wanted)
    constants = 3 if name == "muon" else 0  # its coefficients, in the chain without decay too
    assert floats(state.opt_state) == floats(kept) + constants
    if moments is not None:
        assert floats(kept) == moments * trees.count(state.params)


def test_lion_is_optaxs_own():
    labels = partition.label(UPPER, PARAMS)
    tx = make_optimizer(optax.scale_by_lion(), RATE, labels, weight_decay=DECAY, clip_norm=None)
    wanted, _ = by_hand(optax.lion(RATE, weight_decay=DECAY, mask=matrices))
    close(by_jaxtune(tx).params, wanted)


WHOLE = {
    "adafactor": lambda: optax.adafactor(RATE, min_dim_size_to_factor=2),
    "muon": lambda: contrib.muon(RATE),
    "lion": lambda: optax.lion(RATE),
    "schedule_free": lambda: contrib.schedule_free_adamw(RATE, warmup_steps=2),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_optimizer_of_optax_takes_the_trainable_tree(name):
    """Without make_optimizer: it has a rate of its own, and sees no frozen leaf."""
    state, (wanted, kept) = by_jaxtune(WHOLE[name]()), by_hand(WHOLE[name]())
    close(state.params, wanted)
    assert floats(state.opt_state) == floats(kept)


def test_schedule_free_wraps_what_make_optimizer_gives():
    labels = partition.label(UPPER, PARAMS)
    inner = make_optimizer(SGD(momentum=0.0), RATE, labels, weight_decay=DECAY, clip_norm=None)
    by_optax = optax.chain(
        optax.add_decayed_weights(DECAY, matrices), optax.scale_by_learning_rate(RATE)
    )
    state = by_jaxtune(contrib.schedule_free(inner, RATE, b1=0.9))
    wanted, kept = by_hand(contrib.schedule_free(by_optax, RATE, b1=0.9))
    close(state.params, wanted)
    close(
        contrib.schedule_free_eval_params(state.opt_state, state.params),
        contrib.schedule_free_eval_params(kept, wanted),
    )


def test_the_audit_counts_the_bytes_of_an_optimizer_of_optax():
    labels = partition.label(UPPER, PARAMS)
    found = audit(
        apply_fn, cross_entropy, PARAMS, labels, BATCH,
        Updates(RATE, DECAY, optax.scale_by_lion()),
    )  # fmt: skip
    kept = {group.name: group.optimizer_bytes for group in found.groups}
    assert kept == {"frozen": 0, "trainable": 4 * 21, "trainable, not decayed": 4 * 6}


def margin_loss(outputs, batch):
    """The Crammer-Singer hinge, by hand: one loss for each row."""
    right = jnp.take_along_axis(outputs, batch["labels"][:, None], axis=1)
    others = jnp.where(jax.nn.one_hot(batch["labels"], 3) > 0, -jnp.inf, outputs).max(1)
    losses = jnp.maximum(0.0, 1.0 + others - right[:, 0])
    return weighted_mean(losses, weights(batch, losses.shape))


def metrics(outputs, batch):
    """A metric of one's own beside the loss: sums and weights by name."""
    correct = (outputs.argmax(-1) == batch["labels"]).astype(jnp.float32)
    return {
        "margin": margin_loss(outputs, batch),
        "error": weighted_mean(1.0 - correct, weights(batch, correct.shape)),
        "largest": Mean(jnp.abs(outputs).sum(), jnp.float32(outputs.size)),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_and_metrics_of_ones_own(weighted):
    weight = np.array([1, 0, 1, 1, 2, 1], np.float32) if weighted else np.ones(6, np.float32)
    batch = BATCH | ({"weight": weight} if weighted else {})
    labels = partition.label(Full(), PARAMS)
    tx = make_optimizer(SGD(0.0), 0.1, labels, weight_decay=0.0, clip_norm=None)
    trainable, frozen = partition.partition(PARAMS, labels)
    state = init_state(trainable, tx, jax.random.key(0))
    step = jax.jit(make_train_step(apply_fn, margin_loss, tx, num_microbatches=2))
    state, info = step(state, frozen, batch)

    def loss_by_hand(params):
        outputs = apply_fn(params, BATCH, key=None, train=True)
        rows = [jnp.delete(row, label) for row, label in zip(outputs, BATCH["labels"], strict=True)]
        right = jnp.stack([row[i] for row, i in zip(outputs, BATCH["labels"], strict=True)])
        losses = jax.nn.relu(1.0 + jnp.stack(rows).max(1) - right)
        return (losses * weight).sum() / weight.sum()

    loss, gradient = jax.jit(jax.value_and_grad(loss_by_hand))(PARAMS)
    np.testing.assert_allclose(info.loss.value, loss, rtol=1e-5)
    close(state.params, jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, gradient))

    means, outputs = make_eval_step(apply_fn, metrics)(trainable, frozen, batch)
    np.testing.assert_allclose(means["margin"].value, loss, rtol=1e-5)
    wrong = (np.asarray(outputs).argmax(1) != BATCH["labels"]) * weight
    np.testing.assert_allclose(means["error"].value, wrong.sum() / weight.sum(), rtol=1e-6)
    np.testing.assert_allclose(means["largest"].value, np.abs(outputs).mean(), rtol=1e-6)


def difference(function, x, direction, size=1e-2):
    return (function(x + size * direction) - function(x - size * direction)) / (2 * size)


@pytest.mark.parametrize("strategy", [None, Lora(2, targets=("second/w$",), head=None)])
def test_saliency_is_the_gradient_to_the_inputs(strategy):
    params, function = PARAMS, apply_fn
    if strategy is not None:
        params = injection.extend(strategy, PARAMS, jax.random.key(0))
        params = params | {"second": jax.tree.map(lambda leaf: leaf + 0.1, params["second"])}
        function = injection.adapt(strategy, apply_fn)

    def score(x):
        return function(params, {"x": x}, key=None, train=False)[:, 1].sum()

    x, direction = jnp.asarray(BATCH["x"]), jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)
    saliency = jax.jit(jax.grad(score))(x)
    wanted = difference(score, x, direction)
    np.testing.assert_allclose(jnp.vdot(saliency, direction), wanted, rtol=2e-3)


def test_saliency_of_words_is_the_gradient_to_their_embeddings(golden):
    """By the table's own gradient: each token of the text stands in it once."""
    model = load_pretrained(golden / "odd")
    ids = jnp.asarray([[5, 17, 33, 21, 40, 8]], jnp.int32)
    batch = {"input_ids": ids, "attention_mask": jnp.ones_like(ids), "token_type_ids": 0 * ids}
    table = model.params["bert"]["embeddings"]["word_embeddings"]["embedding"]

    @jax.jit
    @jax.value_and_grad
    def score(table):
        params = trees.replace(
            model.params, {"bert": {"embeddings": {"word_embeddings": {"embedding": table}}}}
        )
        return model.apply_fn(params, batch, key=None, train=False)[0, 1]

    saliency = np.asarray(score(table)[1])
    assert set(np.flatnonzero(np.abs(saliency).sum(1))) == set(ids[0].tolist())
    for i in (17, 8):
        length = np.linalg.norm(saliency[i])
        direction = np.zeros_like(saliency)
        direction[i] = saliency[i] / length
        found = difference(lambda table: score(table)[0], table, direction, 1e-3)
        np.testing.assert_allclose(found, length, rtol=2e-2)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (jnp.tanh, r"the parameter 'act' is .*tanh.*: expected arrays alone"),
        (jnp.zeros(2, jnp.int32), r"'act' is int32, which has no gradient.*'act=frozen'"),
        (jax.random.key(0), r"'act' is key<fry>, which has no gradient"),
    ],
)
def test_a_leaf_that_no_gradient_trains_is_named(leaf, message):
    with pytest.raises(UserError, match=message):
        partition.label(Full(), {"act": leaf, "w": jnp.ones(2)})


def test_a_frozen_leaf_may_be_of_integers():
    params = {"ids": jnp.arange(3), "w": jnp.ones(2)}
    labels = partition.label(Rules(("ids=frozen", ".*=trainable")), params)
    assert partition.partition(params, labels)[0]["ids"] is None


def test_an_equinox_module():
    """Where the library is installed; registered dataclasses stand for it elsewhere."""
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(5, 3, 4, 2, key=jax.random.key(0))
    net = eqx.nn.Sequential([eqx.nn.LayerNorm(5), mlp])
    with pytest.raises(UserError, match="expected arrays alone"):
        partition.label(Full(), net)
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def forward(params, batch, *, key, train):
        return jax.vmap(eqx.combine(params, static))(batch["x"])

    def run(params, strategy):
        extended = injection.extend(strategy, params, jax.random.key(0))
        labels = partition.label(strategy, extended)
        trainable, frozen = partition.partition(extended, labels)
        tx = make_optimizer("adamw", RATE, labels, weight_decay=DECAY, clip_norm=None)
        state = init_state(trainable, tx, jax.random.key(0))
        function = injection.adapt(strategy, forward)
        step = jax.jit(make_train_step(function, cross_entropy, tx))
        for _ in range(3):
            state, _ = step(state, frozen, BATCH)
        return trees.merge(state.params, frozen)

    def loss(params):
        return cross_entropy(forward(params, BATCH, key=None, train=True), BATCH).value

    tx = optax.adamw(RATE, weight_decay=DECAY, mask=matrices)
    opt_state, wanted, grad = tx.init(params), params, eqx.filter_jit(jax.grad(loss))
    for _ in range(3):
        updates, opt_state = tx.update(grad(wanted), opt_state, wanted)
        wanted = optax.apply_updates(wanted, updates)
    found = zip(*map(jax.tree.leaves, (run(params, Full()), wanted)), strict=True)
    for leaf, by_optax in found:
        np.testing.assert_allclose(leaf, by_optax, rtol=1e-4, atol=1e-5)

    strategy = Lora(2, targets=(r"layers/1/layers/[01]/weight$",), head=r"layers/1/layers/2/")
    merged = injection.merge(strategy, run(params, strategy))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), merged, params)
    assert moved.layers[1].layers[0].weight
    assert moved.layers[1].layers[2].bias
    assert not moved.layers[1].layers[0].bias
    assert not moved.layers[0].weight
