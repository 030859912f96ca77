"""Meshes and rules that cannot be, each with its error; and the rules of each family."""

import jax
import jax.numpy as jnp
import pytest
from cover import mark_rest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.families.bert_config import BertConfig
from jaxtune.models.families.convnext import ConvNextConfig
from jaxtune.models.families.dinov2_config import Dinov2Config
from jaxtune.models.families.distilbert import DistilBertConfig
from jaxtune.models.families.gpt2 import GPT2Config
from jaxtune.models.families.modernbert_config import ModernBertConfig
from jaxtune.models.families.resnet import ResNetConfig
from jaxtune.models.families.roberta import RobertaConfig
from jaxtune.models.families.vit import ViTConfig
from jaxtune.models.registry import FAMILIES, parameter_shapes
from jaxtune.parallel.parts import choose_parts
from jaxtune.parallel.sharding import (
    AXES,
    Sharding,
    check_devices,
    choose_specs,
    make_sharding,
    mesh_sizes,
    parse_rules,
)
from jaxtune.settings import ParallelSettings

PARAMS = {
    "a": {"kernel": jnp.zeros((6, 4)), "bias": jnp.zeros(4)},
    "b": {"kernel": jnp.zeros((4, 4))},
}
ONE = {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("fields", "devices", "expected"),
    [
        ({}, 8, (8, 1, 1)),
        ({}, 1, (1, 1, 1)),
        ({"fsdp": 4}, 8, (2, 4, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, 8, (2, 2, 2)),
        ({"data": 1, "tensor": -1}, 8, (1, 1, 8)),
        ({"mode": "pmap"}, 8, (8, 1, 1)),
        ({"mode": "pmap", "fsdp": 1, "tensor": 1}, 1, (1, 1, 1)),
    ],
)
def test_one_axis_takes_what_the_others_leave(fields, devices, expected):
    sizes = mesh_sizes(ParallelSettings(**fields), devices)
    assert tuple(sizes[name] for name in AXES) == expected


@pytest.mark.parametrize(
    ("fields", "devices", "words"),
    [
        ({"data": 3}, 8, ["data 3 x fsdp 1 x tensor 1", "8 devices", "-1 for the rest"]),
        ({"fsdp": 3}, 8, ["fsdp 3", "8 devices"]),
        ({"data": 2, "fsdp": 2, "tensor": 4}, 8, ["data 2 x fsdp 2 x tensor 4", "8 devices"]),
        ({"fsdp": 2}, 1, ["fsdp 2", "1 devices"]),
        ({"mode": "pmap", "fsdp": 2}, 8, ["'pmap' with fsdp 2", "parallel.fsdp=1", "mode=jit"]),
        ({"mode": "pmap", "tensor": 2}, 8, ["'pmap' with tensor 2", "parallel.tensor=1"]),
    ],
)
def test_sizes_that_do_not_fit_the_devices_are_refused(fields, devices, words):
    with pytest.raises(UserError) as error:
        mesh_sizes(ParallelSettings(**fields), devices)
    for word in words:
        assert word in str(error.value)


def test_a_batch_smaller_than_the_devices_that_share_it_is_refused():
    settings = ParallelSettings(data=2, fsdp=2, tensor=2)
    check_devices(settings, 4, 8)
    with pytest.raises(UserError, match=r"batch_size is 3, but data 2 x fsdp 2.*at least 4"):
        check_devices(settings, 3, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/kernel$", ["'a/kernel$'", "REGEX=AXIS AXIS"]),
        ("a/kernel$=", ["REGEX=AXIS AXIS"]),
        ("a/kernel$=fdsp -", ["'fdsp -'", "Nearest: fsdp"]),
        ("a/kernel$=data -", ["'data -'", "fsdp and tensor"]),
        ("a/kernel$=fsdp fsdp", ["'fsdp fsdp'", "at most once"]),
        ("a/kernal$=fsdp -", ["matches none of the 3 parameters", "Nearest: a/kernel"]),
        ("a(/kernel$=fsdp -", ["is not a regular expression"]),
    ],
)
def test_a_rule_that_cannot_be_is_refused(text, words):
    with pytest.raises(UserError) as error:
        parse_rules((text,), paths.leaf_names(PARAMS))
    for word in words:
        assert word in str(error.value)


def test_the_first_rule_wins_and_the_rest_is_whole():
    rules = parse_rules(("a/.*=-", "kernel$=fsdp tensor"), paths.leaf_names(PARAMS))
    specs = choose_specs(rules, PARAMS, ONE | {"fsdp": 2, "tensor": 2})
    assert specs == {"a/bias": P(None), "a/kernel": P(None), "b/kernel": P("fsdp", "tensor")}


def test_an_axis_of_one_device_shares_out_nothing():
    specs = choose_specs([("kernel$", P("fsdp", "tensor"))], PARAMS, ONE | {"fsdp": 2})
    assert specs["a/kernel"] == P("fsdp", None)


@pytest.mark.parametrize(
    ("rules", "sizes", "words"),
    [
        (
            [("kernel$", P("fsdp"))],
            {"fsdp": 4},
            ["parallel.fsdp is 4", "dimension 0", "'a/kernel'", "[6, 4]", "a/kernel$=-"],
        ),
        ([("kernel$", P(None, "tensor"))], {"tensor": 3}, ["tensor is 3", "dimension 1"]),
        ([("bias$", P(None, "fsdp"))], {"fsdp": 2}, ["'a/bias'", "[4]", "2 dimensions (- fsdp)"]),
    ],
)
def test_a_spec_that_does_not_fit_a_parameter_names_it(rules, sizes, words):
    with pytest.raises(UserError) as error:
        choose_specs(rules, PARAMS, ONE | sizes)
    for word in words:
        assert word in str(error.value)


CONFIGS = {
    "bert": BertConfig(),
    "roberta": RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1),
    "distilbert": DistilBertConfig(),
    "gpt2": GPT2Config(),
    "modernbert": ModernBertConfig(),
    "vit": ViTConfig(),
    "dinov2": Dinov2Config(),
    "convnext": ConvNextConfig(),
    "resnet": ResNetConfig(),
}


@pytest.mark.parametrize("family", mark_rest(CONFIGS, ("distilbert", "vit", "resnet")))
def test_fsdp_divides_the_published_models(family):
    """Base size: of eight devices each keeps an eighth, but for biases and norms."""
    part = FAMILIES[family]
    for head in part.heads:
        module = part.make_module(head, CONFIGS[family], 2, jnp.float32)
        shapes = parameter_shapes(module)
        specs = choose_specs(part.sharding_rules, shapes, ONE | {"fsdp": 8})
        kept = whole = 0
        for name, leaf in paths.flatten(shapes).items():
            whole += leaf.size
            kept += leaf.size / (8 if "fsdp" in specs[name] else 1)
        assert 8 * kept / whole < 1.05


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "resnet"])
def test_tensor_divides_the_matrices_of_the_published_models(family):
    part = FAMILIES[family]
    head = next(iter(part.heads))
    shapes = parameter_shapes(part.make_module(head, CONFIGS[family], 2, jnp.float32))
    specs = choose_specs(part.sharding_rules, shapes, ONE | {"tensor": 2})
    layers = {
        name: leaf.size
        for name, leaf in paths.flatten(shapes).items()
        if len(leaf.shape) == 2 and any(c.isdigit() for c in name.split("/"))
    }
    shared = sum(size for name, size in layers.items() if "tensor" in specs[name])
    fused = family in ("gpt2", "modernbert")  # those side by side are whole
    assert shared / sum(layers.values()) > (0.29 if fused else 0.99)


@pytest.mark.parametrize(
    ("shape", "spec", "data", "expected"),
    [
        ((16, 6), P(), 8, P("data", None)),
        ((6, 16), P(), 8, P(None, "data")),  # a vocabulary that 8 does not divide
        ((3, 3, 8, 16), P(), 8, P(None, None, "data", None)),
        ((6, 6), P(), 8, P(None, None)),
        ((16,), P(), 8, P(None)),
        ((16, 16), P("fsdp"), 8, P("fsdp", "data")),
        ((16, 16), P("fsdp", "tensor"), 8, P("fsdp", "tensor")),
        ((16, 16), P("fsdp"), 1, P("fsdp", None)),
    ],
)
def test_data_shares_out_the_first_dimension_that_is_free(shape, spec, data, expected):
    params = {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}
    sizes = {"data": data, "fsdp": 2, "tensor": 2}
    assert choose_parts({"kernel": spec}, params, sizes) == {"kernel": expected}


def test_a_moment_lies_as_its_part_and_a_parameter_whole():
    mesh = AbstractMesh((4, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    sharding = Sharding("jit", mesh, {"a/kernel": P()}, {"a/kernel": P("data", None)})
    whole, row, other = (jax.ShapeDtypeStruct(n, jnp.float32) for n in ((8, 6), (8,), (6, 6)))
    factored = {"v_row": {"a": {"kernel": row}}, "odd": {"a": {"kernel": other}}}
    state = {"params": {"a": {"kernel": whole}}, "opt_state": {"mu": {"a": {"kernel": whole}}}}
    found = paths.flatten(sharding.shardings(state | {"factors": factored}))
    assert {name: sharding.spec for name, sharding in found.items()} == {
        "params/a/kernel": P(),
        "opt_state/mu/a/kernel": P("data", None),
        "factors/v_row/a/kernel": P(),
        "factors/odd/a/kernel": P(),
    }
    assert sharding.bytes_per_device(state["opt_state"]) == 8 * 6 * 4 / 4


def test_the_mesh_of_one_device_is_none():
    if jax.device_count() > 1:
        pytest.skip("this machine has several devices")
    assert make_sharding(ParallelSettings(), (), PARAMS) is None
