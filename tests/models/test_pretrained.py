"""Loading: every layout gives the same parameters, the head is kept or new, faults are named."""

import hashlib
import json
import shutil
import socket

import flax.serialization
import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.pretrained import load_pretrained, load_weights
from jaxtune.models.source import head_names, is_regression

ODD_CLASSES = ("negative", "neutral", "positive")
POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address):
        pytest.fail(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def make_folder(golden, tmp_path):
    """A function that writes odd anew, with other tensors and other fields of config.json."""
    folder = tmp_path / "model"

    def make(tensors=None, source="odd", drop=(), **fields):
        folder.mkdir(exist_ok=True)
        if tensors is None:
            tensors = load_file(golden / source / "model.safetensors")
        save_file(tensors, folder / "model.safetensors")
        config = json.loads((golden / source / "config.json").read_text()) | fields
        config = {name: value for name, value in config.items() if name not in drop}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.fixture
def odd_tensors(golden):
    return load_file(golden / "odd" / "model.safetensors")


@pytest.fixture(scope="module")
def odd(golden):
    return load_pretrained(golden / "odd")


def message(path, **options):
    """The message of the UserError that loading raises."""
    with pytest.raises(UserError) as caught:
        load_pretrained(path, **options)
    return str(caught.value)


def same(first, second, *, but=()):
    """Whether two parameter trees are equal bit for bit, apart from some parts."""
    first, second = paths.flatten(first), paths.flatten(second)
    assert first.keys() == second.keys()
    for leaf in first:
        if not leaf.startswith(tuple(but) or "?"):
            assert second[leaf].dtype == jnp.float32
            np.testing.assert_array_equal(first[leaf], second[leaf], err_msg=leaf)
    return True


def prefixed(tensors, old, new):
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: value
        for name, value in tensors.items()
    }


# --- Layouts --------------------------------------------------------------------------------


def test_the_values_are_those_of_the_file(odd, odd_tensors):
    flat = paths.flatten(odd.params)
    assert len(flat) == len(odd_tensors)
    query = "bert/encoder/layer/2/attention/self/query/kernel"
    np.testing.assert_array_equal(
        flat[query], odd_tensors["bert.encoder.layer.2.attention.self.query.weight"].T
    )
    assert odd.class_names == ODD_CLASSES
    assert odd.report.lines() == [
        f"loaded: {len(flat)} tensors",
        "newly initialised: nothing",
        "unused: 0 tensors",
    ]


def test_shards(golden, odd):
    assert same(odd.params, load_pretrained(golden / "odd_sharded").params)


def test_without_prefix(odd, odd_tensors, make_folder):
    folder = make_folder(prefixed(odd_tensors, "bert.", ""))
    assert same(odd.params, load_pretrained(folder).params)


def test_old_layer_norm_names(odd, odd_tensors, make_folder):
    def rename(name):
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        return old.replace("LayerNorm.bias", "LayerNorm.beta")

    renamed = {rename(name): value for name, value in odd_tensors.items()}
    assert len(set(renamed) - set(odd_tensors)) == 14
    loaded = load_pretrained(make_folder(renamed))
    assert same(odd.params, loaded.params)
    assert loaded.report.unused == ()


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_flax_msgpack(odd, golden, tmp_path, prefix, dtype):
    tree = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), odd.params)
    if not prefix:
        tree = {**tree.pop("bert"), **tree}
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(tree))
    shutil.copy(golden / "odd" / "config.json", tmp_path)
    loaded = load_pretrained(tmp_path)
    assert same(jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), odd.params), loaded[1])
    assert loaded.report.lines()[2] == "unused: 0 tensors"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_are_widened_exactly(odd, odd_tensors, make_folder, dtype):
    loaded = load_pretrained(make_folder({k: v.astype(dtype) for k, v in odd_tensors.items()}))
    assert same(jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), odd.params), loaded[1])


def test_bare_encoder_gets_a_new_head(golden, odd):
    loaded = load_pretrained(golden / "odd_bare", class_names=ODD_CLASSES, key=jax.random.key(0))
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), odd.params)
    assert same(rounded, loaded.params, but=["classifier"])
    assert loaded.report.lines() == [
        f"loaded: {len(jax.tree.leaves(odd.params)) - 2} tensors",
        "newly initialised: classifier (not in the files)",
        "unused: 0 tensors",
    ]


def test_a_base_without_pooler_gets_a_new_one(odd, odd_tensors, make_folder):
    kept = {name: value for name, value in odd_tensors.items() if name not in POOLER}
    folder = make_folder(kept)
    loaded = load_pretrained(folder, key=jax.random.key(0))
    assert same(odd.params, loaded.params, but=["bert/pooler"])
    assert loaded.report.new == {"bert/pooler": "not in the files"}
    assert "has no usable head" in message(folder)


def test_unused_tensors_are_reported_and_buffers_are_not(odd, odd_tensors, make_folder):
    extra = {
        "bert.embeddings.position_ids": np.arange(41)[None],
        "cls.predictions.bias": np.ones(101, np.float32),
        "cls.seq_relationship.bias": np.ones(2, np.float32),
        "other": np.ones(1, np.float32),
    }
    loaded = load_pretrained(make_folder(odd_tensors | extra))
    assert same(odd.params, loaded.params)
    assert loaded.report.lines()[2] == "unused: 3 tensors (cls, other)"


# --- Faults of the weights ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("bert.encoder.layer.1.intermediate.dense.weight", "(58, 36)"),
        ("bert.embeddings.word_embeddings.weight", "(101, 36)"),
        ("bert.encoder.layer.0.output.LayerNorm.bias", "(36,)"),
        (POOLER[0], "(36, 36)"),  # the other half of the pooler is there
        (POOLER[1], "(36,)"),
        (HEAD[0], "(3, 36)"),
        (HEAD[1], "(3,)"),
    ],
)
def test_missing_tensor(odd_tensors, make_folder, name, shape):
    del odd_tensors[name]
    text = message(make_folder(odd_tensors), key=jax.random.key(0))
    assert f"the tensor {name} of shape {shape} is missing from model.safetensors" in text


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("bert.encoder.layer.1.intermediate.dense.weight", (36, 58), (58, 36)),
        ("bert.embeddings.position_embeddings.weight", (40, 36), (41, 36)),
        ("classifier.weight", (4, 36), (3, 36)),
        ("classifier.bias", (1,), (3,)),
    ],
)
def test_wrong_shape(odd_tensors, make_folder, name, found, expected):
    odd_tensors[name] = np.ones(found, np.float32)
    text = message(make_folder(odd_tensors), key=jax.random.key(0))
    assert f"the tensor {name} has shape {found}, but config.json asks for {expected}" in text


def test_wrong_shape_in_flax_is_in_flax_order(odd, golden, tmp_path):
    tree = jax.tree.map(np.asarray, odd.params)
    tree["bert"]["pooler"]["dense"]["kernel"] = np.ones((36, 35), np.float32)
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(tree))
    shutil.copy(golden / "odd" / "config.json", tmp_path)
    text = message(tmp_path)
    assert "bert/pooler/dense/kernel has shape (36, 35)" in text
    assert "asks for (36, 36)" in text


def test_digest(golden, odd):
    data = (golden / "odd" / "model.safetensors").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert odd.sha256 == digest
    assert load_weights(odd.design, sha256=digest).sha256 == digest
    with pytest.raises(UserError, match=rf"{digest}, expected {'0' * 64}.*config\.model\.sha256"):
        load_weights(odd.design, sha256="0" * 64)


def test_digest_of_shards_is_over_all_of_them(golden):
    files = sorted((golden / "odd_sharded").glob("*.safetensors"))
    joined = b"".join(file.read_bytes() for file in files)
    assert load_pretrained(golden / "odd_sharded").sha256 == hashlib.sha256(joined).hexdigest()


# --- Faults of config.json ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "t5"}, ["model_type is 't5'", "jaxtune loads bert"]),
        ({"model_type": "bart"}, ["model_type is 'bart'", "Nearest: bert"]),
        ({"model_type": None}, ["model_type is 'None'", "jaxtune loads bert"]),
        ({"position_embedding_type": "relative_key"}, ["relative_key", "absolute"]),
        ({"is_decoder": True}, ["is_decoder must be false"]),
        ({"add_cross_attention": True}, ["decoder"]),
        ({"hidden_act": "gelu_fast"}, ["'gelu_fast'", "gelu_new", "Nearest: gelu"]),
        ({"hidden_act": 3}, ["hidden_act is 3", "expected text"]),
        ({"num_attention_heads": 5}, ["hidden size 36", "5 attention heads"]),
        ({"num_attention_heads": 0}, ["num_attention_heads is 0", "whole number from 1"]),
        ({"num_hidden_layers": -1}, ["num_hidden_layers is -1", "whole number from 1"]),
        ({"vocab_size": "101"}, ["vocab_size is '101'", "whole number"]),
        ({"vocab_size": True}, ["vocab_size is True", "whole number"]),
        ({"layer_norm_eps": "1e-6"}, ["layer_norm_eps is '1e-6'", "a number"]),
        ({"id2label": {"zero": "a"}}, ["id2label", '{"0": NAME']),
        ({"id2label": ["a", "b"]}, ["id2label", '{"0": NAME']),
        ({"id2label": None, "num_labels": "3"}, ["num_labels", "whole number"]),
    ],
)
def test_bad_config(make_folder, fields, words):
    folder = make_folder(**fields)
    text = message(folder)
    assert str(folder / "config.json") in text
    for word in words:
        assert word in text


def test_absent_model_type(make_folder):
    assert "jaxtune loads bert" in message(make_folder(drop=["model_type"]))


def test_a_rate_may_be_a_whole_number(make_folder):
    config = load_pretrained(make_folder(hidden_dropout_prob=0, classifier_dropout=0)).config
    assert (config.hidden_dropout_prob, config.classifier_dropout) == (0, 0)


def test_absent_fields_have_berts_defaults(make_folder):
    text = message(make_folder(drop=["vocab_size"]))
    assert "has shape (101, 36), but config.json asks for (30522, 36)" in text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b'["bert"]'])
def test_damaged_config(make_folder, content):
    folder = make_folder()
    (folder / "config.json").write_bytes(content)
    text = message(folder)
    assert str(folder / "config.json") in text
    assert "JSON" in text


# --- Paths ----------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch):
    def refuse(*arguments, **options):
        pytest.fail(f"the hub was asked for {arguments}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)


@pytest.mark.usefixtures("no_hub")
def test_paths_that_are_no_model(golden, tmp_path):
    assert "it has no config.json" in message(tmp_path)
    file = golden / "odd" / "config.json"
    assert f"model path {file} is a file, expected a folder" in message(file)
    for path in (tmp_path / "absent", "./odd", "~/nowhere/odd", "~nobody/odd", "a/b/c"):
        assert "does not exist" in message(path)


def test_home_is_expanded(golden, monkeypatch):
    monkeypatch.setenv("HOME", str(golden))
    assert load_pretrained("~/odd").folder == golden / "odd"


def test_hub_id_loads_from_the_folder_that_was_fetched(golden, monkeypatch):
    calls = []

    def fetch(name, *, revision, allow_patterns):
        calls.append((name, revision, allow_patterns))
        return str(golden / "odd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    loaded = load_pretrained("someone/some-model", revision="v1")
    assert loaded.folder == golden / "odd"
    ((name, revision, patterns),) = calls  # no second fetch, for Flax weights
    assert (name, revision) == ("someone/some-model", "v1")
    assert "*.safetensors" in patterns
    assert not any("bin" in pattern for pattern in patterns)


def test_hub_id_without_safetensors_fetches_flax_weights(odd, golden, tmp_path, monkeypatch):
    shutil.copy(golden / "odd" / "config.json", tmp_path)

    def fetch(name, *, revision, allow_patterns):
        if "flax_model.msgpack" in allow_patterns:
            data = flax.serialization.to_bytes(jax.tree.map(np.asarray, odd.params))
            (tmp_path / "flax_model.msgpack").write_bytes(data)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert same(odd.params, load_pretrained("some-model").params)


@pytest.mark.parametrize("error", [OSError("no route\nto host"), ValueError(""), KeyError("x")])
def test_hub_failure_is_one_message(monkeypatch, error):
    def fetch(*arguments, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    text = message("someone/some-model")
    assert "someone/some-model is no local folder" in text
    assert type(error).__name__ in text
    assert "config.model.path" in text
    assert "\n" not in text


# --- Heads ----------------------------------------------------------------------------------


def test_same_classes_in_another_order_keep_the_files_order(golden, odd):
    loaded = load_pretrained(golden / "odd", class_names=("positive", "negative", "neutral"))
    assert loaded.class_names == ODD_CLASSES
    assert same(odd.params, loaded.params)


@pytest.mark.parametrize(
    "names", [("a", "b", "c"), ("negative", "positive"), (*ODD_CLASSES, "mixed")]
)
def test_other_classes_get_a_new_head(golden, odd, names):
    assert "has no usable head" in message(golden / "odd", class_names=names)
    loaded = load_pretrained(golden / "odd", class_names=names, key=jax.random.key(0))
    assert loaded.class_names == names
    assert loaded.params["classifier"]["kernel"].shape == (36, len(names))
    assert set(loaded.report.unused) == set(HEAD)
    assert "other classes: negative, neutral, positive" in loaded.report.lines()[1]
    if len(names) != 3:
        loaded.params["classifier"] = odd.params["classifier"]
    assert same(odd.params, loaded.params, but=["classifier"])


def test_a_class_named_twice_is_not_taken_for_the_same_head(odd_tensors, make_folder):
    folder = make_folder(id2label={"0": "a", "1": "b", "2": "a"})
    loaded = load_pretrained(folder, class_names=("a", "b"), key=jax.random.key(0))
    assert loaded.class_names == ("a", "b")


def test_numbered_classes_take_a_head_of_generic_names(odd, make_folder):
    folder = make_folder(id2label={str(i): f"LABEL_{i}" for i in range(3)})
    loaded = load_pretrained(folder, class_names=("0", "1", "2"))
    assert loaded.class_names == ("0", "1", "2")
    assert same(odd.params, loaded.params)
    for names in (("1", "2", "3"), ("a", "b", "c"), ("0", "1")):
        assert "no usable head" in message(folder, class_names=names)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"id2label": {"10": "k", "2": "c", "0": "a"}}, ("a", "c", "k")),
        ({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"num_labels": 1}, ("LABEL_0",)),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_head_names(fields, names):
    assert head_names(fields) == names


def test_num_labels_alone(odd, make_folder):
    loaded = load_pretrained(make_folder(drop=["id2label", "label2id"], num_labels=3))
    assert loaded.class_names == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert same(odd.params, loaded.params)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_labels": 1}, True),
        ({"num_labels": 2}, False),
        ({"num_labels": 1, "problem_type": "single_label_classification"}, False),
        ({"num_labels": 3, "problem_type": "regression"}, True),
    ],
)
def test_is_regression(fields, expected):
    assert is_regression(fields) is expected


def test_regression_keeps_its_head(golden):
    loaded = load_pretrained(golden / "one_type")
    assert loaded.class_names == ()
    assert same(loaded.params, load_pretrained(golden / "one_type", num_outputs=1).params)
    assert loaded.params["classifier"]["kernel"].shape == (20, 1)


def test_regression_and_classifier_do_not_share_a_head(golden):
    assert "classifier" in message(golden / "odd", num_outputs=1)
    loaded = load_pretrained(golden / "odd", num_outputs=1, key=jax.random.key(0))
    assert loaded.params["classifier"]["kernel"].shape == (36, 1)
    assert loaded.report.new == {"classifier": "the files hold a classifier"}
    loaded = load_pretrained(golden / "one_type", class_names="ab", key=jax.random.key(0))
    assert loaded.params["classifier"]["kernel"].shape == (20, 2)
    assert loaded.report.new == {"classifier": "the files hold a regression"}


def test_a_regression_of_several_numbers_is_no_classifier(make_folder):
    folder = make_folder(
        id2label={str(i): f"LABEL_{i}" for i in range(3)}, problem_type="regression"
    )
    assert "hold a regression" in message(folder, class_names=("0", "1", "2"))


def test_a_new_head_is_a_function_of_the_key(golden):
    def head(seed):
        loaded = load_pretrained(golden / "odd", class_names=("a", "b"), key=jax.random.key(seed))
        return loaded.params["classifier"]

    first, again, other = head(0), head(0), head(1)
    np.testing.assert_array_equal(first["kernel"], again["kernel"])
    assert not np.array_equal(first["kernel"], other["kernel"])
    assert 0.1 < np.std(first["kernel"]) < 0.3  # initializer_range is 0.2
    np.testing.assert_array_equal(first["bias"], 0)


def test_only_the_head_is_drawn(golden):
    loaded = load_pretrained(golden / "odd", class_names=("a", "b"), key=jax.random.key(0))
    base = load_pretrained(golden / "odd")
    assert same(base.params["bert"], loaded.params["bert"])
