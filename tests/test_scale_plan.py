"""The scale plan against numbers worked out by hand."""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def scale_plan(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("scale_plan")


def tiny(module: ModuleType):
    query, output = "layer/0/attention/query/kernel", "layer/0/attention/output/kernel"
    leaves = [
        module.Leaf(query, (8, 16), 4, ("fsdp", "tensor"), True, 0),
        module.Leaf(output, (16, 8), 4, ("tensor", "fsdp"), True, 0),
        module.Leaf("embeddings/embedding", (10, 8), 2, (None, "fsdp"), False, -1),
        module.Leaf("classifier/bias", (4,), 4, (), True),
    ]
    work = module.Work(
        rows=8, length=4, read=1, width=8, inner=16, heads=2, layers=2, outputs=4, batch_bytes=400
    )
    return leaves, work


def test_what_a_device_keeps_and_sends_on_three_axes(scale_plan):
    leaves, work = tiny(scale_plan)
    found = scale_plan.plan(leaves, {"data": 2, "fsdp": 2, "tensor": 2}, work)
    assert found.parameter_bytes == (32 + 32) * 4 + 40 * 2 + 4 * 4
    assert found.moment_bytes == 2 * (32 + 32 + 4) * 4
    assert found.batch_bytes == 100
    assert found.argument_bytes == 352 + 544 + 100
    assert found.gathered_bytes == (64 + 64) * 4 + 80 * 2
    assert found.gradient_bytes == (64 + 64 + 4) * 4
    assert {(m.kind, m.what, m.axes, m.group, m.num_bytes) for m in found.messages} == {
        ("all-gather", "parameters", ("fsdp",), 2, 512),
        ("all-gather", "frozen parameters", ("fsdp",), 2, 160),
        ("reduce-scatter", "gradients", ("fsdp",), 2, 512),
        ("all-reduce", "gradients", ("data",), 2, 256),
        ("all-reduce", "gradients", ("data", "fsdp"), 4, 16),
        ("all-reduce", "activations", ("tensor",), 2, 2 * 4 * 8 * 4),
        ("all-reduce", "numbers", ("data", "fsdp"), 4, 8),
        ("all-reduce", "numbers", ("fsdp",), 2, 2 * 2 * 4),
        ("all-reduce", "numbers", ("tensor",), 2, 2 * 2 * 4),
    }
    assert found.wire_bytes == (512 + 160 + 512) / 2 + 256 + 24 + 256 + 12 + 16 + 16


def test_over_data_only_the_trained_leaves_and_two_numbers_are_sent(scale_plan):
    leaves, work = tiny(scale_plan)
    found = scale_plan.plan(leaves, {"data": 8, "fsdp": 1, "tensor": 1}, work)
    assert found.sent("all-reduce") == (128 + 128 + 4) * 4 + 2 * 4
    assert found.wire_bytes == 2 * 7 / 8 * found.sent("all-reduce")
    assert found.gathered_bytes == 0


def test_data_shares_out_moments_and_sends_what_an_all_reduce_would(scale_plan):
    leaves, work = tiny(scale_plan)
    for i in (0, 1):
        leaves[i] = dataclasses.replace(leaves[i], axes=(), in_parts=True)
    found = scale_plan.plan(leaves, {"data": 8, "fsdp": 1, "tensor": 1}, work)
    assert found.parameter_bytes == (128 + 128 + 4) * 4 + 80 * 2
    assert found.moment_bytes == 2 * (16 + 16 + 4) * 4
    assert {(m.kind, m.what, m.axes, m.group, m.num_bytes) for m in found.messages} == {
        ("reduce-scatter", "gradients", ("data",), 8, 256 * 4),
        ("all-gather", "new parameters", ("data",), 8, 256 * 4),
        ("all-reduce", "gradients", ("data", "fsdp"), 8, 4 * 4),
        ("all-reduce", "numbers", ("data", "fsdp"), 8, 8),
        ("all-reduce", "numbers", ("data",), 8, 2 * 2 * 4),
    }
    assert found.wire_bytes == 2 * 7 / 8 * (260 * 4 + 8 + 16)


def test_data_cuts_what_fsdp_leaves_whole(scale_plan):
    leaves, work = tiny(scale_plan)
    leaves = [dataclasses.replace(leaves[0], axes=("fsdp", None), in_parts=True)]
    found = scale_plan.plan(leaves, {"data": 2, "fsdp": 2, "tensor": 1}, work)
    assert found.moment_bytes == 2 * 32 * 4
    sent = {(m.kind, m.axes): m.num_bytes for m in found.messages if m.what != "numbers"}
    assert sent == {
        ("all-gather", ("fsdp",)): 512,
        ("reduce-scatter", ("fsdp",)): 512,
        ("reduce-scatter", ("data",)): 256,
        ("all-gather", ("data",)): 256,
    }
    leaves = [dataclasses.replace(leaves[0], axes=())]  # in parts over data, whole over fsdp
    found = scale_plan.plan(leaves, {"data": 2, "fsdp": 2, "tensor": 1}, work)
    sent = {(m.kind, m.axes): m.num_bytes for m in found.messages if m.what != "numbers"}
    assert sent == {
        ("reduce-scatter", ("data",)): 512,
        ("all-gather", ("data",)): 512,
        ("all-reduce", ("fsdp",)): 256,
    }


def test_one_device_sends_nothing(scale_plan):
    leaves, work = tiny(scale_plan)
    found = scale_plan.plan(leaves, {"data": 1, "fsdp": 1, "tensor": 1}, work)
    assert found.messages == ()


def test_what_the_step_does_not_read_is_kept_and_not_gathered(scale_plan):
    leaves, work = tiny(scale_plan)
    leaves[2] = dataclasses.replace(leaves[2], is_used=False)
    found = scale_plan.plan(leaves, {"data": 1, "fsdp": 4, "tensor": 1}, work)
    assert found.parameter_bytes == (32 + 32) * 4 + 20 * 2 + 4 * 4
    assert found.argument_bytes == (32 + 32 + 4) * 12 + 16 - 16 + 100
    assert found.sent("all-gather") == (128 + 128) * 4


def test_the_last_layer_sends_what_the_head_reads(scale_plan):
    leaves, work = tiny(scale_plan)
    leaves[1] = dataclasses.replace(leaves[1], layer=1)
    found = scale_plan.plan(leaves, {"data": 1, "fsdp": 1, "tensor": 2}, work)
    sent = [m.num_bytes for m in found.messages if m.what == "activations"]
    assert sent == [8 * 1 * 8 * 4]
