"""Names and layouts: the rename is one to one, and back and forth is where it began."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxtune.core import paths
from jaxtune.models import convert
from jaxtune.models.pretrained import load_pretrained

NAMES = {
    "bert/embeddings/word_embeddings/embedding": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/LayerNorm/scale": "bert.embeddings.LayerNorm.weight",
    "bert/embeddings/LayerNorm/bias": "bert.embeddings.LayerNorm.bias",
    "bert/encoder/layer/10/attention/self/query/kernel": (
        "bert.encoder.layer.10.attention.self.query.weight"
    ),
    "classifier/kernel": "classifier.weight",
    "classifier/bias": "classifier.bias",
}


@pytest.mark.parametrize(("leaf", "name"), NAMES.items())
def test_torch_name(leaf, name):
    assert convert.torch_name(leaf) == name


@pytest.mark.parametrize(
    ("leaf", "name"),
    [
        ("bert/embeddings/LayerNorm/scale", "bert.embeddings.LayerNorm.gamma"),
        ("bert/embeddings/LayerNorm/bias", "bert.embeddings.LayerNorm.beta"),
        ("classifier/kernel", None),
        ("bias", None),
    ],
)
def test_old_torch_name(leaf, name):
    assert convert.old_torch_name(leaf) == name


@pytest.mark.parametrize("folder", ["odd", "one_type"])
def test_names_and_shapes_are_those_of_the_file(golden, folder):
    tensors = load_file(golden / folder / "model.safetensors")
    flat = paths.flatten(load_pretrained(golden / folder).params)
    assert {convert.torch_name(leaf) for leaf in flat} == set(tensors)
    for leaf, value in flat.items():
        stored = tensors[convert.torch_name(leaf)]
        assert convert.file_shape(leaf, value.shape) == stored.shape
        back = convert.to_file(leaf, np.asarray(value))
        assert back.flags.c_contiguous
        np.testing.assert_array_equal(back, stored)
        np.testing.assert_array_equal(convert.from_file(leaf, stored), value)


def test_only_kernels_are_transposed():
    value = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(convert.to_file("a/kernel", value), value.T)
    np.testing.assert_array_equal(convert.from_file("a/kernel", value), value.T)
    for leaf in ("a/embedding", "a/scale", "a/bias"):
        np.testing.assert_array_equal(convert.to_file(leaf, value), value)
        np.testing.assert_array_equal(convert.from_file(leaf, value), value)
    assert convert.file_shape("a/kernel", (2, 3)) == (3, 2)
    assert convert.file_shape("a/embedding", (2, 3)) == (2, 3)
