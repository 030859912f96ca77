"""LoRA in peft's files: peft's own golden folders, round trips, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from safetensors.numpy import load_file, save_file

from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.data.text.tokens import load_tokenizer
from jaxtune.export import peft
from jaxtune.export.adapter_folder import check_head, find_head_name, open_model
from jaxtune.export.own_adapter import apply_own
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.source import read_source
from jaxtune.models.weights import open_weights
from jaxtune.tuning import injection, partition
from jaxtune.tuning.lora import Lora

CASES = ["lora", "rslora", "dora"]
GOLDEN = Path(__file__).parent / "golden" / "peft"
FAMILIES = sorted(path.name for path in (GOLDEN / "families").iterdir())
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PADDED, FULL = "padded", "full"
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


@pytest.fixture
def theirs(golden, tmp_path):
    """A function that copies a folder of peft's, names the base in it, and edits its config."""

    def copy(name, **fields):
        folder = tmp_path / name
        shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
        edit_config(folder, **({"base_model_name_or_path": str(golden / "odd")} | fields))
        return folder

    return copy


BASE = peft.Base("BASE")


def edit_config(folder, **fields):
    config = json.loads((folder / peft.CONFIG).read_text())
    (folder / peft.CONFIG).write_text(json.dumps(config | fields))


def edit_tensors(folder, edit):
    tensors = load_file(folder / peft.WEIGHTS)
    edit(tensors)
    save_file(tensors, folder / peft.WEIGHTS)


def batch_of(golden, name):
    reference = np.load(golden / "odd" / "reference.npz")
    return {field: jnp.asarray(reference[f"{name}/{field}"]) for field in INPUTS}


def base_for(golden, classes=3):
    names = ("negative", "neutral", "positive") if classes == 3 else ("a", "b")
    return load_pretrained(golden / "odd", class_names=names, key=jax.random.key(1))


def labels_of(lora, params):
    return partition.label(lora, params)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_peft(golden, theirs, name):
    folder = theirs(name)
    expected = np.load(folder / "logits.npz")
    opened, tokenizer_folder = open_model(folder)
    assert tokenizer_folder == golden / "odd"
    base = base_for(golden, expected[PADDED].shape[1])
    lora, extended = peft.load_lora(folder, base.params)
    beside = injection.adapt(lora, base.apply_fn)
    for batch_name in (PADDED, FULL):
        batch = batch_of(golden, batch_name)
        for apply_fn, params in ((opened.apply_fn, opened.params), (beside, extended)):
            found = apply_fn(params, batch, key=None, train=False)
            np.testing.assert_allclose(found, expected[batch_name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", mark_rest(FAMILIES, FAMILIES[1::2]))
def test_other_families_and_heads(theirs, golden, tmp_path, case):
    base_folder = golden.parent / "families" / case
    folder = theirs(f"families/{case}", base_model_name_or_path=str(base_folder))
    opened, _ = open_model(folder)
    reference = load_file(base_folder / "reference.safetensors")
    batch = {name: jnp.asarray(reference[name]) for name in INPUTS if name in reference}
    found = opened.apply_fn(opened.params, batch, key=None, train=False)
    expected = np.load(folder / "logits.npz")["logits"]
    real = batch["attention_mask"][..., None] if found.ndim == 3 else 1
    np.testing.assert_allclose(found * real, expected * real, rtol=0, atol=1e-5)

    head = find_head_name(folder, {})
    base = load_pretrained(base_folder, head=head, num_outputs=2 if head == "span" else None)
    lora, extended = peft.load_lora(folder, base.params)
    labels = labels_of(lora, extended)
    peft.save_lora(tmp_path / "ours", lora, extended, labels, peft.Base("BASE", head))
    ours, original = (load_file(path / peft.WEIGHTS) for path in (tmp_path / "ours", folder))
    assert ours.keys() == original.keys()
    assert all(value.tobytes() == original[key].tobytes() for key, value in ours.items())
    ours, original = (
        json.loads((path / peft.CONFIG).read_text()) for path in (tmp_path / "ours", folder)
    )
    for field in ("task_type", "fan_in_fan_out", "r", "lora_alpha"):
        assert ours[field] == original[field], field
    assert set(ours["modules_to_save"]) <= set(original["modules_to_save"] or ())


def test_the_strategy_says_what_the_file_holds(golden, theirs):
    lora, extended = peft.load_lora(theirs("rslora"), base_for(golden, 2).params)
    assert (lora.rank, lora.alpha, lora.dropout, lora.use_rslora) == (4, 6, 0.1, True)
    labels = paths.flatten(labels_of(lora, extended))
    heads = {name for name, label in labels.items() if label == "head"}
    parts = [f"{part}/{leaf}" for part in ("classifier", "bert/pooler/dense") for leaf in PARTS]
    assert heads == set(parts)
    added = {name for name in labels if name.endswith("_lora_a")}
    place = "bert/encoder/layer/{}/attention/self/{}/kernel_lora_a"
    assert added == {place.format(i, part) for i in (0, 2) for part in ("query", "key")}


PARTS = ("kernel", "bias")


def test_class_names_of_a_foreign_folder(theirs):
    assert open_model(theirs("rslora"))[0].class_names == ("LABEL_0", "LABEL_1")
    assert open_model(theirs("lora"))[0].class_names == ("negative", "neutral", "positive")
    folder = theirs("rslora")
    card = {"id2label": {"0": "no", "1": "yes"}, "problem_type": "single_label_classification"}
    (folder / "jaxtune.json").write_text(json.dumps(card))
    assert open_model(folder)[0].class_names == ("no", "yes")


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_has_the_keys_shapes_and_values_of_peft(golden, theirs, tmp_path, name):
    folder = theirs(name)
    lora, extended = peft.load_lora(folder, base_for(golden, 2 if name == "rslora" else 3).params)
    peft.save_lora(tmp_path / "ours", lora, extended, labels_of(lora, extended), BASE)
    ours, original = (load_file(path / peft.WEIGHTS) for path in (tmp_path / "ours", folder))
    assert ours.keys() == original.keys()
    for key, value in ours.items():
        assert value.dtype == original[key].dtype
        np.testing.assert_array_equal(value, original[key])
    config, before = (
        json.loads((path / peft.CONFIG).read_text()) for path in (tmp_path / "ours", folder)
    )
    different = {"target_modules", "modules_to_save", "base_model_name_or_path"}
    assert config.keys() <= before.keys()
    assert all(config[field] == before[field] for field in config.keys() - different)


@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}, {"use_dora": True}, {"head": None}])
def test_our_own_folders_load_and_save_byte_for_byte(golden, tmp_path, fields):
    base = base_for(golden)
    lora = Lora(rank=3, alpha=4.5, targets=(r"(?:query|layer/1/output/dense)/kernel$",), **fields)
    extended = lora.extend(base.params, jax.random.key(3))
    flat = paths.flatten(extended)
    for i, name in enumerate(name for name in flat if "_lora_b" in name):
        flat[name] = jax.random.normal(jax.random.key(i), flat[name].shape)
    extended = paths.unflatten(flat)
    folders = [tmp_path / "first", tmp_path / "second"]
    tokenizer, card = load_tokenizer(golden / "odd"), {"task": "classification"}
    for folder in folders:
        labels = labels_of(lora, extended)
        peft.save_lora(folder, lora, extended, labels, BASE, tokenizer=tokenizer, card=card)
        lora, extended = peft.load_lora(folder, base.params)
        for name, leaf in paths.flatten(extended).items():
            np.testing.assert_array_equal(leaf, flat[name])
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second
    assert {"jaxtune.json", "tokenizer.json", peft.CONFIG, peft.WEIGHTS} <= set(first)
    # peft saves the head of every sequence classifier, trained or not.
    assert json.loads(first[peft.CONFIG])["modules_to_save"] == ["classifier"]


def test_a_module_is_saved_whole(golden, tmp_path):
    base, lora = base_for(golden), Lora(head=r"classifier/|layer/1/output/LayerNorm/bias$")
    extended = lora.extend(base.params, jax.random.key(0))
    peft.save_lora(tmp_path / "a", lora, extended, labels_of(lora, extended), BASE)
    config = json.loads((tmp_path / "a" / peft.CONFIG).read_text())
    norm = "bert.encoder.layer.1.output.LayerNorm"
    assert config["modules_to_save"] == [norm, "classifier"]
    saved = load_file(tmp_path / "a" / peft.WEIGHTS)
    assert {f"base_model.model.{norm}.{leaf}" for leaf in ("weight", "bias")} <= set(saved)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (Lora(head=r"classifier/|query/bias$"), r"self\.query' is trained as it is.*has LoRA"),
        (Lora(targets=(r"^classifier/kernel$",), rank=3), "'classifier' is trained as it is"),
        (Lora(targets=(r"word_embeddings/embedding$",)), "expected names that end in /kernel"),
    ],
)
def test_what_has_no_place_in_the_files_is_refused(golden, tmp_path, lora, message):
    extended = lora.extend(base_for(golden).params, jax.random.key(0))
    with pytest.raises(UserError, match=message):
        peft.save_lora(tmp_path / "a", lora, extended, labels_of(lora, extended), BASE)
    assert not (tmp_path / "a").exists()


def test_a_name_that_ends_as_another_does_is_refused(tmp_path):
    def module(size):
        return {"kernel": jnp.ones((size, size)), "bias": jnp.ones(size)}

    params = {"query": module(4), "dense": module(4), "old_dense": module(4)}
    lora = Lora(rank=2, targets=("^query/kernel$",), head="^dense/")
    extended = lora.extend(params, jax.random.key(0))
    with pytest.raises(UserError, match=r"'dense' is trained.*'old_dense' too, which is frozen"):
        peft.save_lora(tmp_path / "a", lora, extended, labels_of(lora, extended), BASE)


BAD_FIELDS = [
    ({"bias": "all"}, "bias is 'all'"),
    ({"rank_pattern": {"query": 4}}, "rank_pattern is"),
    ({"alpha_pattern": {"query": 4}}, "alpha_pattern is"),
    ({"lora_bias": True}, "lora_bias is True"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"layer_replication": [[0, 2]]}, "layer_replication is"),
    ({"trainable_token_indices": [3]}, "trainable_token_indices is"),
    ({"r": None}, "r is None, expected a number"),
    ({"lora_alpha": "8"}, "lora_alpha is '8', expected a number"),
    ({"r": 50}, "LoRA's rank is 50"),
    ({"r": 5}, r"lora_A.weight has shape \[3, 36\].*ask for \[5, 36\]"),
    ({"use_dora": True}, "lora_magnitude_vector is missing"),
    ({"target_modules": ["query", "value", "key"]}, r"self\.key\.lora_A\.weight is missing"),
    ({"target_modules": r"bert\..*\.dense"}, r"dense\.lora_A\.weight is missing"),
    ({"target_modules": "(query"}, r"target_modules is '\(query': missing \)"),
    ({"target_modules": [3]}, r"target_modules is \[3\], expected a list of names"),
    ({"target_modules": 3}, "target_modules is 3, expected a list of names"),
    ({"modules_to_save": True}, "modules_to_save is True, expected a list of names"),
    ({"modules_to_save": ["classifier", "pooler"]}, r"pooler\.dense\.\w+ is missing"),
    ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
    ({"base_model_name_or_path": None}, "base_model_name_or_path is None"),
    ({"base_model_name_or_path": "../gone/base"}, "'../gone/base'.*does not exist.*Set base_"),
    ({"base_model_name_or_path": "/gone/base"}, "'/gone/base'.*does not exist.*Set base_"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS)
def test_a_config_that_jaxtune_cannot_follow(theirs, fields, message):
    with pytest.raises(UserError, match=message):
        open_model(theirs("lora", **fields))


def test_a_pattern_that_takes_too_long_is_refused(theirs, monkeypatch):
    def fullmatch(pattern, name, timeout):
        assert timeout < 1
        raise TimeoutError

    monkeypatch.setattr("regex.fullmatch", fullmatch)
    with pytest.raises(UserError, match="target_modules is 'query': it takes for ever"):
        open_model(theirs("lora", target_modules="query"))


def drop(key):
    return lambda tensors: tensors.pop(key)


def put(key, shape):
    return lambda tensors: tensors.update({key: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop(f"{QUERY}.lora_A.weight"), r"query\.lora_A\.weight is missing"),
        (drop(f"{QUERY}.lora_B.weight"), r"query\.lora_B\.weight is missing"),
        (drop("base_model.model.classifier.bias"), r"classifier\.bias is missing"),
        (put(f"{QUERY}.lora_B.weight", (36, 4)), r"shape \[36, 4\].*ask for \[36, 3\]"),
        (put(f"{QUERY}.lora_magnitude_vector", (36,)), "magnitude_vector is left over"),
        (put("base_model.model.bert.extra.weight", (3,)), "belongs to no matrix"),
        (put(f"{QUERY}.lora_embedding_A", (3, 36)), "LoRA on embeddings is not supported"),
        (lambda tensors: [tensors.pop(k) for k in [*tensors] if "lora" in k], "holds no lora_A"),
    ],
)
def test_tensors_that_do_not_belong_together(theirs, edit, message):
    folder = theirs("lora")
    edit_tensors(folder, edit)
    with pytest.raises(UserError, match=message):
        open_model(folder)


def test_pickles_and_damaged_files_are_refused(theirs):
    folder = theirs("lora")
    (folder / peft.WEIGHTS).write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        open_model(folder)
    (folder / peft.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"only as adapter_model\.bin, which is a pickle"):
        open_model(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
        open_model(folder)


def test_another_base_is_refused(theirs):
    folder = theirs("lora")
    (folder / "jaxtune.json").write_text(json.dumps({"base_sha256": "0" * 64}))
    with pytest.raises(UserError, match="trained on weights with sha256 0000"):
        open_model(folder)


def test_a_damaged_card_is_refused(theirs):
    folder = theirs("lora")
    (folder / "jaxtune.json").write_text(json.dumps({"id2label": {"first": "no"}}))
    with pytest.raises(UserError, match=r"jaxtune\.json: expected id2label"):
        open_model(folder)


def test_a_base_without_a_head_needs_one_in_the_adapter(golden, theirs):
    folder = theirs("lora", base_model_name_or_path=str(golden / "odd_bare"))
    opened, _ = open_model(folder)  # odd_bare is odd's encoder in float16, with its pooler
    found = opened.apply_fn(opened.params, batch_of(golden, FULL), key=None, train=False)
    expected = np.load(folder / "logits.npz")[FULL]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2)
    check_head(opened)  # as predictions and the server do
    edit_config(folder, modules_to_save=None)
    names = ("weight", "bias")
    edit_tensors(folder, lambda t: [t.pop(f"base_model.model.classifier.{n}") for n in names])
    with pytest.raises(UserError, match="has no 'classifier/bias', and neither has its base"):
        open_model(folder)


def test_training_from_an_adapter_folder_is_refused(theirs):
    with pytest.raises(UserError, match=r"adapter_config\.json and no config\.json.*merged model/"):
        read_source(theirs("lora"))


@pytest.mark.parametrize(
    ("mapping", "head"),
    [
        ({"base_model_class": "BertForTokenClassification"}, "token"),
        ({"base_model_class": "BertModel"}, "sequence"),
        (None, "sequence"),
    ],
)
def test_an_adapter_without_a_task_type_follows_its_model(golden, tmp_path, mapping, head):
    config = {"peft_type": "LORA", "task_type": None, "auto_mapping": mapping}
    config["base_model_name_or_path"] = str(golden / "odd")
    (tmp_path / peft.CONFIG).write_text(json.dumps(config))
    assert find_head_name(tmp_path, {}) == head
    span = shutil.copytree(golden / "odd", tmp_path / "span")
    model = json.loads((span / "config.json").read_text())
    model["architectures"] = ["BertForQuestionAnswering"]
    (span / "config.json").write_text(json.dumps(model))
    (tmp_path / peft.CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(span)}))
    assert find_head_name(tmp_path, {}) == ("token" if head == "token" else "span")


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (["lora"], r"tuning is \['lora'\], expected the section"),
        (
            {"name": "lora", "rank": "2"},
            r"tuning is .*'rank': '2'.* cannot be followed \(TypeError",
        ),
        ({"name": "ia3", "targets": 5}, r"cannot be followed \(TypeError"),
        ({"name": "ia3", "targets": [{}]}, r"cannot be followed \(TypeError"),
        ({"name": "ia4"}, "expected one of"),
    ],
)
def test_a_strategy_of_our_own_that_is_none(golden, tmp_path, tuning, message):
    base = load_pretrained(golden / "odd")
    with pytest.raises(UserError, match=message):
        apply_own(tmp_path, {"tuning": tuning}, base, open_weights(golden / "odd"))
