"""Weight files: every layout gives the same tensors, and every fault names its file."""

import json
import shutil
import socket
import struct

import flax.serialization
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core.errors import UserError
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.weights import open_weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address):
        pytest.fail(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def message(folder):
    """The message of the UserError that opening the folder raises."""
    with pytest.raises(UserError) as caught:
        open_weights(folder)
    return str(caught.value)


def contents(folder):
    weights = open_weights(folder)
    return {name: weights.read(name) for name in weights.shapes}


def test_single_file(golden):
    weights = open_weights(golden / "odd")
    assert weights.layout == "torch"
    assert weights.files == (golden / "odd" / "model.safetensors",)
    tensors = load_file(golden / "odd" / "model.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == weights.shapes
    for name, value in tensors.items():
        np.testing.assert_array_equal(weights.read(name), value)


def test_shards_hold_what_the_single_file_holds(golden):
    weights = open_weights(golden / "odd_sharded")
    assert [file.name[:11] for file in weights.files] == [f"model-0000{i}" for i in (1, 2, 3)]
    single, sharded = contents(golden / "odd"), contents(golden / "odd_sharded")
    assert single.keys() == sharded.keys()
    for name in single:
        np.testing.assert_array_equal(single[name], sharded[name])


def test_flax_file_keeps_its_own_names_and_shapes(tmp_path):
    tree = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.zeros(4, ml_dtypes.bfloat16)}
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    weights = open_weights(tmp_path)
    assert weights.layout == "flax"
    assert weights.shapes == {"a/kernel": (2, 3), "b": (4,)}
    np.testing.assert_array_equal(weights.read("a/kernel"), tree["a"]["kernel"])
    assert weights.read("b").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_dtype_is_that_of_the_file(tmp_path, dtype):
    values = np.array([1.5, -2.0, 3.25]).astype(dtype)
    save_file({"x": values}, tmp_path / "model.safetensors")
    read = open_weights(tmp_path).read("x")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, values)


def test_single_file_comes_before_shards_and_flax(golden, tmp_path):
    shutil.copytree(golden / "odd_sharded", tmp_path, dirs_exist_ok=True)
    (tmp_path / "flax_model.msgpack").write_bytes(b"never read")
    assert len(open_weights(tmp_path).files) == 3
    save_file({"x": np.ones(1, np.float32)}, tmp_path / "model.safetensors")
    assert set(open_weights(tmp_path).shapes) == {"x"}


def test_missing_shard(golden, tmp_path):
    shutil.copytree(golden / "odd_sharded", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    text = message(tmp_path)
    assert "model.safetensors.index.json" in text
    assert "model-00002-of-00003.safetensors" in text


@pytest.mark.parametrize("size", [0, 7, 500, 100_000])
def test_truncated_safetensors(golden, tmp_path, size):
    data = (golden / "odd" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:size])
    text = message(tmp_path)
    assert str(tmp_path / "model.safetensors") in text
    assert "damaged" in text
    assert "Fetch it again" in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[]",
        b"{}",
        b'{"weight_map": 3}',
        b'{"weight_map": {"a": 3}}',
        b'{"weight_map": {"a": ["b"]}}',
    ],
)
def test_damaged_index(tmp_path, content):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    text = message(tmp_path)
    assert "model.safetensors.index.json" in text
    assert "Fetch it again" in text


def test_index_reaches_no_other_folder(tmp_path):
    inside = tmp_path / "model"
    inside.mkdir()
    save_file({"x": np.ones(1, np.float32)}, tmp_path / "outside.safetensors")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (inside / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names the shard outside.safetensors" in message(inside)


@pytest.mark.parametrize("content", [b"", b"\x81", b"\x05", b"\xa3abc", b"not msgpack at all"])
def test_damaged_msgpack(tmp_path, content):
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    text = message(tmp_path)
    assert str(tmp_path / "flax_model.msgpack") in text
    assert "damaged" in text


def test_truncated_msgpack(tmp_path):
    data = flax.serialization.msgpack_serialize({"a": np.ones((20, 20), np.float32)})
    (tmp_path / "flax_model.msgpack").write_bytes(data[:-5])
    assert "damaged" in message(tmp_path)


def test_pickles_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    text = message(tmp_path)
    assert "pytorch_model.bin" in text
    assert "pickle" in text
    assert "save_pretrained" in text


def test_no_weights_lists_what_is_there(tmp_path):
    assert "found nothing" in message(tmp_path)
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text("")
    text = message(tmp_path)
    assert "model.safetensors" in text
    assert "0.txt, 1.txt" in text
    assert "and 2 more" in text


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float8_e4m3fn"])
def test_what_is_not_plain_floating_point_is_named(golden, tmp_path, dtype):
    shutil.copytree(golden / "odd", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["classifier.weight"] = np.ones((3, 36), getattr(ml_dtypes, dtype, dtype))
    save_tensors(tensors, file)
    with pytest.raises(UserError, match=r"the tensor classifier\.weight has the dtype [IUF]"):
        load_pretrained(tmp_path / "model")


def save_tensors(tensors, file):
    """As safetensors does, which for numpy knows no float8."""
    names = {"float32": "F32", "float8_e4m3fn": "F8_E4M3", "uint8": "U8", "int32": "I32"}
    header, data = {}, b""
    for name, value in tensors.items():
        end = len(data) + value.nbytes
        header[name] = {
            "dtype": names.get(str(value.dtype), "I8"),
            "shape": value.shape,
            "data_offsets": [len(data), end],
        }
        data += value.tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_an_index_with_a_name_that_no_file_can_have(tmp_path):
    index = {"weight_map": {"x": "x" * 5000}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names the shard xxx" in message(tmp_path)
