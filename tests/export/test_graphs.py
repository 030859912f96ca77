"""ONNX files by ONNX Runtime against transformers on torch (tests/golden/make_families.py)."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cover import mark_rest
from processor import has
from safetensors.numpy import load_file
from scipy.special import erf
from torch_models import CASES, ROOT, head_of, inputs_of, load, worst

from jaxtune.export import onnx_file
from jaxtune.export.graphs import layers
from jaxtune.export.graphs.float32 import FLOAT32
from jaxtune.export.graphs.graph import Graph
from jaxtune.export.graphs.int8 import INT8
from jaxtune.export.onnx_file import write_onnx
from jaxtune.export.signature import Signature, signature_of
from jaxtune.models.activations import ACTIVATIONS

TEXTS = [case for case in CASES if head_of(case) != "image"]
FEW = ("bert-sequence", "roberta-span", "distilbert-token", "modernbert-mean", "gpt2-sequence")


@dataclasses.dataclass
class Exported:
    """A file and what it gives."""

    file: Path
    signature: Any

    def __post_init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(self.file), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs):
        names = [output.name for output in self.session.get_outputs()]
        assert names == list(self.signature.outputs)
        assert [given.name for given in self.session.get_inputs()] == list(self.signature.inputs)
        own = {name: inputs[name] for name in self.signature.inputs}
        return dict(zip(names, self.session.run(None, own), strict=True))


@pytest.fixture
def export(tmp_path):
    """A function: model, precision -> `Exported`."""

    def write(model, precision=FLOAT32):
        file = tmp_path / "model.onnx"
        write_onnx(file, model.design, model.params, precision)
        return Exported(file, signature_of(model.design))

    return write


@pytest.mark.parametrize("case", CASES)
def test_logits_of_float32(case, export):
    """And the file has the words for any batch and any length, and says what it is."""
    model, reference = load(case), load_file(ROOT / case / "reference.safetensors")
    exported = export(model)
    difference, scale = worst(exported(inputs_of(reference)), reference)
    assert difference <= 1e-5 * scale
    told = exported.session.get_modelmeta().custom_metadata_map
    assert (told["model_type"], told["head"]) == (
        model.design.source.family.model_type,
        head_of(case),
    )
    for given in exported.session.get_inputs():
        assert given.shape[0] == "batch"
        assert given.shape[1] in ("length", 3)


@pytest.mark.parametrize(
    "case",
    mark_rest(CASES, (*FEW, "bert-masked_lm", "resnet-image", "convnext-image")),
)
def test_logits_of_int8(case, export):
    """Near those of float32, from a file with no large array of float32."""
    model, reference = load(case), load_file(ROOT / case / "reference.safetensors")
    exported = export(model, INT8)
    difference, scale = worst(exported(inputs_of(reference)), reference)
    assert difference > 0
    if has("vnni"):  # without it ONNX Runtime's sums of two products may exceed 16 bits
        assert difference <= 0.05 * scale
    own = ("classifier", "score", "qa_outputs", "out_proj", "position_embeddings", "cls_token")
    own += ("/scale",)
    for array in onnx.load(exported.file).graph.initializer:
        is_matrix = len(array.dims) > 1 and not any(word in array.name for word in own)
        assert not is_matrix or array.data_type == onnx.TensorProto.INT8, array.name


def ragged(reference):
    """Four rows: whole, padded on the right, on the left, and of padding alone."""
    ids = np.tile(reference["input_ids"][:1].astype(np.int64), (4, 1))
    length = ids.shape[1]
    types = np.tile((np.arange(length) > 3).astype(np.int64), (4, 1))
    mask = np.ones_like(ids)
    mask[1, length - 5 :] = 0
    mask[2, :3] = 0
    mask[3] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def alone(inputs, row, length):
    """One row, without the padding on its right."""
    return {name: values[row : row + 1, :length] for name, values in inputs.items()}


@pytest.mark.parametrize("precision", [FLOAT32, INT8], ids=["float32", "int8"])
@pytest.mark.parametrize("case", mark_rest(TEXTS, FEW))
def test_a_row_gives_the_same_alone_and_among_others(case, precision, export):
    exported = export(load(case), precision)
    inputs = ragged(load_file(ROOT / case / "reference.safetensors"))
    together = exported(inputs)
    assert all(np.isfinite(values).all() for values in together.values())
    length = inputs["input_ids"].shape[1]
    for row, own in ((0, length), (1, length - 5), (2, length)):
        for name, values in exported(alone(inputs, row, own)).items():
            rows = together[name][row : row + 1]
            rows = rows[:, :own] if rows.shape[1:2] == (length,) else rows
            real = inputs["attention_mask"][row, :own] > 0
            if rows.shape[1:2] == (own,):
                values, rows = values[:, real], rows[:, real]
            np.testing.assert_allclose(values, rows, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", ["vit-image", "dinov2-odd", "resnet-basic", "convnext-image"])
def test_an_image_gives_the_same_alone_and_among_others(case, export):
    images = load_file(ROOT / case / "reference.safetensors")["pixel_values"]
    exported = export(load(case), INT8)
    together = exported({"pixel_values": images * np.float32([[[[1]]], [[[9]]], [[[0]]]])})
    single = exported({"pixel_values": images[:1]})
    np.testing.assert_allclose(single["logits"], together["logits"][:1], atol=1e-6, rtol=0)


def test_a_token_of_zeros_is_no_division_by_zero(export):
    """Where there is no largest value to scale by, there is nothing to scale."""
    model = load("gpt2-token")
    params = {**model.params, "transformer": {**model.params["transformer"]}}
    inner = params["transformer"]
    for name in ("wte", "wpe", "ln_f"):
        inner[name] = {part: np.zeros_like(values) for part, values in inner[name].items()}
    exported = export(model._replace(params=params), INT8)
    inputs = ragged(load_file(ROOT / "gpt2-token" / "reference.safetensors"))
    assert np.isfinite(exported(inputs)["logits"]).all()


def test_padding_inside_a_text_of_roberta(export):
    """The token of padding, written out, counts as no position."""
    model = load("roberta-token")
    ids = load_file(ROOT / "roberta-token" / "reference.safetensors")["input_ids"]
    ids[:, 4] = ids[0, 2] = model.config.pad_token_id
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    wanted = model.apply_fn(model.params, batch, key=None, train=False)
    found = export(model)({name: values.astype(np.int64) for name, values in batch.items()})
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


@pytest.mark.exhaustive
def test_attention_sums_the_same_whatever_padding_follows():
    """To the last bit, as int8 rounds what follows; kernels are those of this processor."""
    graph, heads = Graph({}, INT8), layers.Heads(12, 32)
    query = layers.first_two(graph, "input_ids")
    bias = layers.bias_of(graph, layers.shown(graph, "attention_mask"))
    parts = query, "input_ids", "token_type_ids"
    graph.rename(layers.attention(graph, parts, heads, bias), "logits")
    axes = ("batch", "length", 384)
    signature = Signature(
        {"input_ids": axes, "token_type_ids": axes, "attention_mask": axes[:2]}, {"logits": axes}
    )
    model = onnx_file._model(graph, signature, {})
    for given in list(model.graph.input)[:2]:
        given.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    for length in range(2, 128):
        keys, values = rng.normal(size=(2, 1, 128, 384)).astype(np.float32)
        mask = (np.arange(128) < length).astype(np.int64)[None]
        found = [
            session.run(
                None,
                {
                    "input_ids": keys[:, :own],
                    "token_type_ids": values[:, :own],
                    "attention_mask": mask[:, :own],
                },
            )[0]
            for own in (length, 128)
        ]
        np.testing.assert_array_equal(*found)


def test_int8_weights_are_the_nearest_of_their_scale():
    kernel = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    kernel[:, 2] = 0
    graph = Graph({}, INT8)
    INT8.product(graph, "x", "w", kernel)
    values, scales = graph.arrays["w"], graph.arrays["w/scale"]
    assert values.dtype == np.int8
    np.testing.assert_array_equal(np.abs(values).max(0), [127, 127, 0])
    np.testing.assert_allclose(values * scales, kernel, atol=float(scales.max()) / 2)


TANH = np.sqrt(2 / np.pi)
FORMULAS = {
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(TANH * (x + 0.044715 * x**3))) / 2,
    "gelu_pytorch_tanh": lambda x: x * (1 + np.tanh(TANH * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_that_a_config_may_name(name):
    graph = Graph({}, FLOAT32)
    graph.rename(layers.activate(graph, "pixel_values", name), "logits")
    signature = Signature({"pixel_values": ("batch",)}, {"logits": ("batch",)})
    model = onnx_file._model(graph, signature, {})
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.linspace(-6, 6, 41, dtype=np.float32)
    (found,) = session.run(None, {"pixel_values": x})
    np.testing.assert_allclose(found, FORMULAS[name](x.astype(np.float64)), atol=1e-6)


def test_weights_too_large_for_one_file_lie_beside_it(export, monkeypatch, tmp_path):
    model = load("bert-token")
    reference = load_file(ROOT / "bert-token" / "reference.safetensors")
    monkeypatch.setattr(onnx_file, "_LIMIT", 1000)
    exported = export(model)
    assert (tmp_path / "model.onnx.data").stat().st_size > 5_000
    difference, scale = worst(exported(inputs_of(reference)), reference)
    assert difference <= 1e-5 * scale
