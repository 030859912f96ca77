"""One small network in six libraries' trees, with every strategy, against optax loops by hand.

The network is written once more in `forward`, over arrays by role, and trained with optax.adamw on
the leaves that a row of TRAINED names. A model's tree has to end with the same numbers.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cover import cover, mark_rest
from flax import nnx

from jaxtune.core import paths, trees
from jaxtune.run.stages import carry
from jaxtune.training.from_nnx import from_nnx
from jaxtune.training.losses import cross_entropy
from jaxtune.training.optimizers import make_optimizer
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection, partition
from jaxtune.tuning.gradual import Gradual
from jaxtune.tuning.lora import Lora
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

PARTS = ("embed", "0", "1", "norm", "head")
WIDTHS = {"embed": (5, 4), "0": (4, 4), "1": (4, 4), "head": (4, 3)}
ROLES = [f"{part}.{kind}" for part in WIDTHS for kind in "wb"] + ["norm.g"]
RATE, DECAY, CLIP, RANK = 0.02, 0.1, 0.5, 2


def draw():
    rng = np.random.default_rng(0)
    arrays = {f"{part}.w": rng.normal(size=shape) for part, shape in WIDTHS.items()}
    arrays |= {f"{part}.b": rng.normal(size=shape[1]) for part, shape in WIDTHS.items()}
    arrays["norm.g"] = rng.normal(size=4)
    return {role: jnp.asarray(x, jnp.float32) for role, x in arrays.items()}


def make_batch():
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(6, 5)).astype(np.float32),
        "labels": rng.integers(0, 3, 6).astype(np.int32),
    }


START, BATCH = draw(), make_batch()


def forward(arrays, x):
    x = x @ arrays["embed.w"] + arrays["embed.b"]
    for i in "01":
        x = x + jnp.tanh(x @ arrays[f"{i}.w"] + arrays[f"{i}.b"])
    return (x * arrays["norm.g"]) @ arrays["head.w"] + arrays["head.b"]


class Model(NamedTuple):
    """A model and what its leaves are called: a format for each part, and the kinds' names."""

    apply_fn: Any
    params: Any
    parts: dict[str, str]
    kinds: dict[str, str]
    transposed: bool = False

    def name(self, role):
        part, kind = role.split(".")
        return f"{self.parts[part]}/{self.kinds[kind]}".removesuffix("/")


class LinenScale(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("scale", nn.initializers.ones, (4,))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="embed")(x)
        for i in range(2):
            x = x + jnp.tanh(nn.Dense(4, name=f"layer_{i}")(x))
        return nn.Dense(3, name="head")(LinenScale(name="norm")(x))


def linen():
    parts = {part: f"layer_{part}" if part in "01" else part for part in PARTS}
    kinds = {"w": "kernel", "b": "bias", "g": "scale"}
    names = {Model(None, None, parts, kinds).name(role): x for role, x in START.items()}

    def apply_fn(params, batch, *, key, train):
        return LinenNet().apply({"params": params}, batch["x"])

    return Model(apply_fn, paths.unflatten(names), parts, kinds)


class NnxScale(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(START["norm.g"])

    def __call__(self, x):
        return x * self.scale[...]


class NnxNet(nnx.Module, pytree=False):
    """With a plain list of layers."""

    def __init__(self, rngs):
        self.embed, self.head = nnx.Linear(5, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.layers = [nnx.Linear(4, 4, rngs=rngs) for _ in range(2)]
        self.norm = NnxScale()
        for part, layer in zip(WIDTHS, (self.embed, *self.layers, self.head), strict=True):
            layer.kernel[...], layer.bias[...] = START[f"{part}.w"], START[f"{part}.b"]

    def __call__(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = x + jnp.tanh(layer(x))
        return self.head(self.norm(x))


def nnx_module():
    apply_fn, params, _ = from_nnx(NnxNet(nnx.Rngs(0)), lambda module, batch: module(batch["x"]))
    return Model(apply_fn, params, LISTED, {"w": "kernel", "b": "bias", "g": "scale"})


def nnx_state():
    """The state itself, whose names end in `value`."""
    graph, params, rest = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)

    def apply_fn(params, batch, *, key, train):
        return nnx.merge(graph, params, rest)(batch["x"])

    kinds = {"w": "kernel/value", "b": "bias/value", "g": "scale/value"}
    return Model(apply_fn, params, LISTED, kinds)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    """As equinox.nn.Linear: the weight is [out, in], and the tree can be called."""

    weight: Any
    bias: Any

    def __call__(self, x):
        return x @ self.weight.T + self.bias


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Scale:
    weight: Any

    def __call__(self, x):
        return x * self.weight


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class CallableNet:
    embed: Linear
    layers: list[Linear]
    norm: Scale
    head: Linear

    def __call__(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = x + jnp.tanh(layer(x))
        return self.head(self.norm(x))


def equinox_like():
    layers = {part: Linear(START[f"{part}.w"].T, START[f"{part}.b"]) for part in WIDTHS}
    params = CallableNet(
        layers["embed"], [layers["0"], layers["1"]], Scale(START["norm.g"]), layers["head"]
    )
    kinds = {"w": "weight", "b": "bias", "g": "weight"}
    return Model(lambda net, batch, *, key, train: net(batch["x"]), params, LISTED, kinds, True)


class Affine(NamedTuple):
    w: Any
    b: Any


class Net(NamedTuple):
    embed: Affine
    layers: tuple[Affine, ...]
    norm: Any
    head: Affine


def by_part(embed, layers, norm, head):
    arrays = dict(zip(("embed.w", "embed.b"), embed, strict=True)) | {"norm.g": norm}
    arrays |= dict(zip(("head.w", "head.b"), head, strict=True))
    for i, layer in enumerate(layers):
        arrays |= dict(zip((f"{i}.w", f"{i}.b"), layer, strict=True))
    return arrays


def named_tuple():
    layers = {part: Affine(START[f"{part}.w"], START[f"{part}.b"]) for part in WIDTHS}

    def apply_fn(params, batch, *, key, train):
        return forward(by_part(*params), batch["x"])

    params = Net(layers["embed"], (layers["0"], layers["1"]), START["norm.g"], layers["head"])
    return Model(apply_fn, params, LISTED, {"w": "w", "b": "b", "g": ""})


def listed():
    """Layers without names: [[w, b], [w, b], [w, b], [g], [w, b]]."""
    params = [
        [START[f"{part}.{kind}"] for kind in "wbg" if f"{part}.{kind}" in START] for part in PARTS
    ]

    def apply_fn(params, batch, *, key, train):
        embed, *layers, (scale,), head = params
        return forward(by_part(embed, layers, scale, head), batch["x"])

    parts = {part: str(i) for i, part in enumerate(PARTS)}
    return Model(apply_fn, params, parts, {"w": "0", "b": "1", "g": "0"})


def numbered():
    """A plain function over dicts with numbers for keys."""
    affine = {part: {"w": START[f"{part}.w"], "b": START[f"{part}.b"]} for part in WIDTHS}
    params = {"layers": {0: affine["0"], 1: affine["1"]}, "norm": {"g": START["norm.g"]}}
    params |= {part: affine[part] for part in ("embed", "head")}

    def apply_fn(params, batch, *, key, train):
        layers = [params["layers"][i] for i in range(2)]
        embed, head, *layers = (
            (x["w"], x["b"]) for x in (params["embed"], params["head"], *layers)
        )
        return forward(by_part(embed, layers, params["norm"]["g"], head), batch["x"])

    return Model(apply_fn, params, LISTED, {"w": "w", "b": "b", "g": "g"})


def flat():
    """A plain function that goes over all of a dict, with slashes in its keys as Haiku's have."""
    parts = {part: part for part in PARTS}

    def apply_fn(params, batch, *, key, train):
        arrays = {name.replace("/", "."): leaf for name, leaf in params.items()}
        assert arrays.keys() == START.keys()
        return forward(arrays, batch["x"])

    params = {role.replace(".", "/"): x for role, x in START.items()}
    return Model(apply_fn, params, parts, {"w": "w", "b": "b", "g": "g"})


LISTED = {part: f"layers/{part}" if part in "01" else part for part in PARTS}
MAKERS = (linen, nnx_module, nnx_state, equinox_like, named_tuple, listed, numbered, flat)
MODELS = {maker.__name__: functools.cache(maker) for maker in MAKERS}

LOWER, UPPER = ("embed.w", "embed.b", "0.w", "0.b"), ("1.w", "1.b", "norm.g", "head.w", "head.b")
TOP = ("head.w", "head.b")
TRAINED = {  # the roles that each stage trains, by strategy
    "full": [ROLES],
    "rules": [("0.w", *TOP)],
    "head": [TOP],
    "last_layers": [UPPER],
    "first_layers_frozen": [UPPER],
    "embeddings_frozen": [("0.w", "0.b", *UPPER)],
    "bitfit": [("embed.b", "0.b", "1.b", *TOP)],
    "layernorm": [("norm.g", *TOP)],
    "gradual": [("norm.g", *TOP), UPPER, ("0.w", "0.b", *UPPER), ROLES],
    "lora": [("0.w_lora_a", "0.w_lora_b", "1.w_lora_a", "1.w_lora_b", *TOP)],
}


def anchored(*names):
    return f"^(?:{'|'.join(names)})$"


def strategy_of(name, model):
    def of(*parts):
        return anchored(*(model.name(role) for role in ROLES if role.split(".")[0] in parts))

    first, second = model.parts["0"], model.parts["1"]  # which differ in the number at the end
    depth = {"layers": f"^{first[:-1]}([{first[-1]}{second[-1]}])/", "below": of("embed")}
    biases = anchored(*(model.name(role) for role in ROLES if role.endswith(".b")))
    matrices = anchored(model.name("0.w"), model.name("1.w"))
    rules = (f"{of('head')}=trainable", f"{anchored(model.name('0.w'))}=trainable", ".*=frozen")
    return {
        "full": Full(),
        "rules": Rules(rules),
        "head": Head(of("head")),
        "last_layers": LastLayers(1, **depth),
        "first_layers_frozen": FirstLayersFrozen(1, **depth),
        "embeddings_frozen": EmbeddingsFrozen(depth["below"]),
        "bitfit": BitFit(biases, of("head")),
        "layernorm": LayerNorm(of("norm"), of("head")),
        "gradual": Gradual(**depth),
        "lora": Lora(RANK, targets=(matrices,), head=of("head")),
    }[name]


def by_role(model, params):
    """Leaves by role, the model's own matrices as [in, out]."""
    leaves, found = paths.flatten(params), {}
    for role in ROLES:
        turned = model.transposed and role.endswith(".w")
        found[role] = leaves[model.name(role)].T if turned else leaves[model.name(role)]
        for part in ("_lora_a", "_lora_b"):
            if model.name(role) + part in leaves:
                found[role + part] = leaves[model.name(role) + part]
    return found


def effective(arrays, transposed):
    """The matrices with LoRA's terms, s = 16 / r."""
    merged = {role: arrays[role] for role in ROLES}
    for role in "0.w", "1.w":
        if f"{role}_lora_a" in arrays:
            term = 16 / RANK * arrays[f"{role}_lora_a"] @ arrays[f"{role}_lora_b"]
            merged[role] = merged[role] + (term.T if transposed else term)
    return merged


def train_by_hand(stages, arrays, transposed):
    """Two steps a stage; leaves that join later have an AdamW of their own."""

    def loss(trained, rest):
        logits = forward(effective(rest | trained, transposed), BATCH["x"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, BATCH["labels"])
        return losses.mean()

    is_matrix = {role: ".w" in role for role in arrays}
    tx = optax.adamw(RATE, weight_decay=DECAY, mask=lambda tree: {r: is_matrix[r] for r in tree})
    grad, update, groups = jax.jit(jax.grad(loss)), jax.jit(tx.update), []
    for trained in stages:
        known = {role for group, _ in groups for role in group}
        joined = {role: arrays[role] for role in trained if role not in known}
        groups.append((list(joined), tx.init(joined)))
        for _ in range(2):
            grads = grad({role: arrays[role] for role in trained}, arrays)
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in grads.values()))
            grads = {role: g * min(1.0, CLIP / norm) for role, g in grads.items()}
            for i, (group, state) in enumerate(groups):
                old = {role: arrays[role] for role in group}
                updates, state = update({role: grads[role] for role in group}, state, old)
                arrays = arrays | optax.apply_updates(old, updates)
                groups[i] = group, state
    return arrays


def train(model, strategy):
    """Two steps a stage with jaxtune: (all parameters at the start, the stages' ends)."""
    params = injection.extend(strategy, model.params, jax.random.key(3))
    apply_fn = injection.adapt(strategy, model.apply_fn)
    state, whole, ends = None, params, []
    for labels in partition.stages(strategy, params):
        tx = make_optimizer("adamw", RATE, labels, weight_decay=DECAY, clip_norm=CLIP)
        step = jax.jit(make_train_step(apply_fn, cross_entropy, tx))
        trainable, frozen = partition.partition(whole, labels)
        old, state = state, init_state(trainable, tx, jax.random.key(0))
        if old is not None:
            state = state._replace(opt_state=carry(old.opt_state, state.opt_state))
        for _ in range(2):
            state, _ = step(state, frozen, BATCH)
        whole = trees.merge(state.params, frozen)
        ends.append((labels, state, whole))
    return params, ends


@functools.cache
def selected_by_hand(name):
    """Of strategies that add nothing, the same for all models."""
    return train_by_hand(TRAINED[name], START, False)


CASES = [
    (m, s) for m in MODELS for s in ("full", "rules", "head", "last_layers", "gradual", "lora")
]
CASES += [("nnx_module", "bitfit"), ("named_tuple", "layernorm")]
CASES += [("equinox_like", "embeddings_frozen"), ("listed", "first_layers_frozen")]


@pytest.mark.parametrize(("model_name", "name"), mark_rest(CASES, cover(CASES)))
def test_every_strategy_trains_every_tree_as_a_loop_by_hand(model_name, name):
    model = MODELS[model_name]()
    strategy = strategy_of(name, model)
    params, ends = train(model, strategy)
    start = before = by_role(model, params)
    for (labels, state, whole), trained in zip(ends, TRAINED[name], strict=True):
        after = by_role(model, whole)
        moved = {role for role in after if not np.array_equal(after[role], before[role])}
        assert moved == set(trained)
        frozen = by_role(model, jax.tree.map(lambda label: np.array(label == "frozen"), labels))
        # by_role turns matrices, which a scalar does not mind
        assert {role for role, x in frozen.items() if not x} == set(trained)
        floats = [x for x in jax.tree.leaves(state.opt_state) if x.dtype == jnp.float32]
        assert trees.num_bytes(floats) == 8 * sum(before[role].size for role in trained)
        before = after
    wanted = (
        train_by_hand(TRAINED[name], start, model.transposed)
        if name == "lora"
        else selected_by_hand(name)
    )
    for role, x in wanted.items():
        np.testing.assert_allclose(before[role], x, rtol=1e-4, atol=1e-5, err_msg=role)
    if name == "lora":
        merged = injection.merge(strategy, whole)
        assert jax.tree.structure(merged) == jax.tree.structure(model.params)
        for role, x in effective(wanted, model.transposed).items():
            np.testing.assert_allclose(by_role(model, merged)[role], x, rtol=1e-4, atol=1e-5)
        outputs = model.apply_fn(merged, BATCH, key=None, train=False)
        found = injection.adapt(strategy, model.apply_fn)(whole, BATCH, key=None, train=False)
        np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)
