"""Compiled programs read from their text: kernels, bytes, products, messages, the least time."""

from pathlib import Path

import pytest

from jaxtune.analysis.hlo import parse
from jaxtune.analysis.kernels import launched
from jaxtune.analysis.messages import collectives, wire_bytes
from jaxtune.analysis.roofline import by_kind, roofline
from jaxtune.analysis.targets import CHIPS

PROGRAMS = Path(__file__).parent / "programs"
GPU = parse((PROGRAMS / "gpu.txt").read_text())

TPU = parse((PROGRAMS / "tpu.txt").read_text())


def test_the_kernels_of_a_program_are_those_of_its_entry_and_its_loops():
    found = launched(GPU)
    kinds = {kind: count for kind, (count, _) in by_kind(found.kernels).items()}
    assert kinds == {
        "fusion __triton_gemm": 1,
        "__cublas$lt$matmul": 1,
        "__cudnn$fmhaSoftmax": 1,
        "fusion kLoop": 12,
        "copy": 1,
    }
    assert [(one.kind, one.group, one.num_bytes) for one in found.sent] == [("all-reduce", 2, 128)]


def test_a_kernel_moves_its_operands_and_results():
    moved = {one.name: one.num_bytes for one in launched(GPU).kernels}
    product = 8 * 16 * 2 + 16 * 4 * 2 + 8 * 4 * 4
    assert moved == {
        "gemm.1": product,
        "cublas.1": product,
        "fmha.1": 2 * 480 * 2 + 2 * 288 * 2,
        "fusion.2": 3 * 128,
        "copy.1": 2 * 128,
    }


def test_a_kernel_of_our_own_that_is_given_an_array_twice_reads_its_parts():
    text = """ENTRY main {
  %x = f32[8,4]{1,0} parameter(0)
  %own = f32[8]{0} custom-call(%x, %x), custom_call_target="__gpu$xla.gpu.triton"
  ROOT %other = f32[8]{0} custom-call(%x, %x), custom_call_target="another"
}"""
    moved = {one.name: one.num_bytes for one in launched(parse(text)).kernels}
    assert moved == {"own": 128 + 32, "other": 2 * 128 + 32}


def test_the_product_in_a_kernel_of_our_own_is_counted():
    call = 'custom-call(%x, %w, %b), custom_call_target="__gpu$xla.gpu.triton"'
    text = f"""ENTRY main {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  %w = bf16[16,4]{{1,0}} parameter(1)
  %b = f32[4]{{0}} parameter(2)
  %one = (bf16[8,4], bf16[8,4]) {call}, metadata={{op_name="jit(_product_and_gelu)/pallas_call"}}
  ROOT %other = (bf16[8,4], bf16[8,4]) {call}, metadata={{op_name="jit(_run_forward)/pallas_call"}}
}}"""
    flops = {one.name: one.flops for one in launched(parse(text)).kernels}
    assert flops == {"one": 2 * 8 * 16 * 4, "other": 0}


def test_the_operations_of_products_are_counted_wherever_they_are():
    flops = {one.name: one.flops for one in launched(GPU).kernels if one.flops}
    heads, queries, keys, features = 2 * 3, 10, 6, 8
    assert flops == {
        "gemm.1": 2 * 8 * 16 * 4,
        "cublas.1": 2 * 8 * 16 * 4,
        "fmha.1": 2 * 2 * heads * queries * keys * features,
    }


def test_of_a_tpu_only_what_goes_to_the_large_memory_is_moved():
    (taken, product), sent = launched(TPU)
    assert sent == ()
    assert (taken.kind, taken.num_bytes) == ("slice", 16 * 8 * 4)
    assert product.num_bytes == 2 * 16 * 4 * 2 + 2 * 8 * 4 * 2
    assert product.flops == 2 * 2 * 8 * 16 * 4  # a product of a batch of two
    assert product.dtype == "bf16"


def test_the_least_time_of_a_program():
    chip, found = CHIPS["h100"], launched(GPU)
    line = roofline(found, chip)
    assert line.kernels == 16
    assert line.launching == pytest.approx(17 * chip.launch)
    assert line.sending == pytest.approx(2 * 128 / 2 / chip.link)
    assert line.busy == pytest.approx(line.num_bytes / chip.bandwidth)  # nothing is bound by rate
    slow = chip._replace(peak=dict.fromkeys(chip.peak, 1.0))
    bound = roofline(found, slow)
    assert bound.flops == line.flops
    assert bound.busy == pytest.approx(line.flops, rel=1e-6)


MESSAGES = """HloModule step, num_partitions=8
  %a = f32[4,8]{1,0} all-gather(%x), replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, dimensions={0}
  %b = f32[2,8]{1,0} reduce-scatter(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %c = (f32[8]{0}, bf16[], /*index=2*/f32[3]{0}) all-reduce(%x, %y, %z), replica_groups={}
  %d = f32[8]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}
  %e = f32[8]{0} all-reduce(%x), replica_groups=mesh['data'=8,'fsdp'=1] {'fsdp'}
  %f = (f32[1,8]{1,0}, f32[4,8]{1,0}) all-gather-start(%x), replica_groups={{0,1,2,3},{4,5,6,7}}
  %g = f32[4,8]{1,0} all-gather-done(%f)
  %h = f32[6]{0} all-reduce-start(%x), replica_groups=[4,2]<=[8]
  %i = f32[6]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %j = f32[6]{0} add(%all-reduce.1, %all-gather.2)
"""


def test_collectives_are_read_from_hlo_in_each_of_its_spellings():
    found = [(one.kind, one.group, one.num_bytes) for one in collectives(MESSAGES)]
    assert found == [
        ("all-gather", 4, 4 * 8 * 4),
        ("reduce-scatter", 4, 4 * 2 * 8 * 4),
        ("all-reduce", 8, 8 * 4 + 2 + 3 * 4),
        ("all-gather", 4, 4 * 8 * 4),
        ("all-reduce", 2, 24),
        ("collective-permute", 2, 24),
    ]


def test_a_ring_sends_twice_for_a_sum_and_once_for_a_gather():
    assert wire_bytes("all-reduce", 80, 4) == 120
    assert wire_bytes("all-gather", 80, 4) == 60
    assert wire_bytes("reduce-scatter", 80, 4) == 60
