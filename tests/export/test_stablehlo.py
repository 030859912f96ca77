"""StableHLO files, run by JAX alone."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from cover import mark_rest
from safetensors.numpy import load_file
from torch_models import CASES, ROOT, inputs_of, load, worst

from jaxtune.export.signature import signature_of
from jaxtune.export.stablehlo import PLATFORMS, PROGRAM, write_stablehlo
from jaxtune.run.export_check import stablehlo_call

FEW = ("bert-span", "resnet-image")

ALONE = """
import sys
sys.modules["jaxtune"] = sys.modules["flax"] = None  # an import of them fails
import jax, numpy as np
file = np.load(sys.argv[1])
program = jax.export.deserialize(bytearray(file["stablehlo"]))
params = {name: file[name] for name in file.files if name != "stablehlo"}
ids = np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]], np.int32)
mask = (ids > 0).astype(np.int32)
outputs = program.call(params, input_ids=ids, attention_mask=mask, token_type_ids=0 * ids)
np.savez(sys.argv[2], **outputs)
"""


def write(case, folder):
    model = load(case)
    file = folder / "model.npz"
    signature = signature_of(model.design)
    write_stablehlo(file, model.apply_fn, model.params, signature)
    return file, signature


@pytest.mark.parametrize("case", mark_rest(CASES, FEW))
def test_outputs_are_those_of_transformers(case, tmp_path):
    file, signature = write(case, tmp_path)
    reference = load_file(ROOT / case / "reference.safetensors")
    inputs = {name: inputs_of(reference)[name] for name in signature.inputs}
    found = stablehlo_call(file)(inputs)
    assert found.keys() == signature.outputs.keys()
    difference, scale = worst(found, reference)
    assert difference <= 1e-5 * scale
    with np.load(file) as arrays:
        program = jax.export.deserialize(bytearray(arrays[PROGRAM]))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    sizes = {str(size) for shape in program.in_avals for size in shape.shape}
    assert {size for axes in signature.inputs.values() for size in map(str, axes)} <= sizes


def test_jax_alone_runs_it(tmp_path):
    file, _ = write("bert-token", tmp_path)
    script, output = tmp_path / "alone.py", tmp_path / "outputs.npz"
    script.write_text(ALONE)
    subprocess.run([sys.executable, script, file, output], check=True, cwd=tmp_path)
    model = load("bert-token")
    ids = np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]], np.int32)
    batch = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32)}
    wanted = model.apply_fn(model.params, batch, key=None, train=False)
    with np.load(output) as found:
        np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


def test_a_row_of_padding_alone_gives_numbers(tmp_path):
    """The mean over no token is that of a token of zeros."""
    file, _ = write("modernbert-mean", tmp_path)
    ids = np.full((2, 4), 5, np.int64)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.int64)
    found = stablehlo_call(file)({"input_ids": ids, "attention_mask": mask})
    assert np.isfinite(found["logits"]).all()
