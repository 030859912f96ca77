"""task=few_shot as a whole: pairs, a fitted classifier, the folder, and what comes in again."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

import jaxtune as jt
from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.tasks.linear_fit import fit_linear
from jaxtune.tuning import partition

QUIET = Report(quiet=True)
WORDS = {"animal": ["cat", "dog", "the cat", "a dog"], "film": ["film", "the film", "good film"]}


def make_rows(count=12, seed=0):
    rng = np.random.default_rng(seed)
    labels = [("animal", "film")[i % 2] for i in range(count)]
    texts = [f"{rng.choice(WORDS[label])} {rng.choice(['was', 'is', 'sat'])}" for label in labels]
    return {"text": texts, "label": labels}


def make_config(model):
    found = jt.default_config()
    found.task = "few_shot"
    found.model.path, found.model.from_scratch = str(model), True
    found.data.max_length, found.data.layout = 16, "padded"
    found.train.batch_size, found.train.num_steps = 4, 3
    found.train.trackers = ()
    found.optimizer.schedule, found.optimizer.warmup_fraction = "constant", 0.0
    return found


@pytest.fixture
def config(tiny_families):
    return make_config(tiny_families["bert"])


@pytest.fixture(scope="module")
def finished(tiny_families, tmp_path_factory):
    """The folder of a run, and what it told."""
    workdir = tmp_path_factory.mktemp("few") / "run"
    return workdir, train(make_config(tiny_families["bert"]), workdir)


def train(config, workdir, rows=None):
    data = {"train": rows or make_rows(), "validation": make_rows(6, 1), "test": make_rows(8, 2)}
    return jt.train(config, workdir, data=data, report=QUIET)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_fitted_classifier_is_that_of_scikit_learn(count):
    rng = np.random.default_rng(count)
    labels = rng.permutation(np.arange(60) % count)
    vectors = rng.normal(size=(60, 12)) + np.eye(count, 12)[labels]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kernel, bias = fit_linear(vectors.astype(np.float32), labels, count)
    theirs = LogisticRegression(tol=1e-9, max_iter=10_000).fit(vectors, labels)
    found = softmax(vectors @ kernel + bias, axis=1)
    np.testing.assert_allclose(found, theirs.predict_proba(vectors), atol=1e-6)


def test_a_run_ends_in_a_classifier_of_its_own_vectors(finished):
    rows, (workdir, done) = make_rows(), finished
    model = jt.load(workdir / "model")
    kernel, bias = fit_linear(model.embed(rows["text"]), np.arange(12) % 2, 2)
    layer = load_file(workdir / "model" / "3_Dense" / "model.safetensors")
    np.testing.assert_allclose(layer["linear.weight"], kernel.T, atol=2e-4)
    np.testing.assert_allclose(layer["linear.bias"], bias, atol=2e-4)
    test = make_rows(8, 2)
    logits = model.embed(test["text"]) @ layer["linear.weight"].T + layer["linear.bias"]
    records = model.predict(test["text"])
    found = [[row["probabilities"][name] for name in ("animal", "film")] for row in records]
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-5)
    scores = jt.evaluate(model, test)
    assert scores == pytest.approx(done["scores"]["test"], abs=1e-5)
    right = [row["label"] == label for row, label in zip(records, test["label"], strict=True)]
    assert scores["accuracy"] == pytest.approx(np.mean(right))
    assert done["best_metric"] == "accuracy"
    told = "72 pairs of texts, 36 of one class (of 30 there are) and 36 of two (of 36)"
    assert any(told in note for note in done["notes"])


def test_the_folder_is_one_of_sentence_transformers(config, tmp_path):
    config.model.normalize, config.model.pooling = False, "first"
    train(config, tmp_path / "run")
    folder = tmp_path / "run" / "model"
    read = {
        name: json.loads((folder / name).read_text())
        for name in ("modules.json", "2_Dense/config.json", "config.json", "jaxtune.json")
    }
    kinds = [(m["path"], m["type"].rpartition(".")[2]) for m in read["modules.json"]]
    assert kinds == [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    assert read["2_Dense/config.json"] == {
        "in_features": 16,
        "out_features": 2,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    assert read["config.json"]["architectures"] == ["BertModel"]
    assert read["config.json"]["id2label"] == {"0": "animal", "1": "film"}
    assert read["jaxtune.json"]["task"] == "few_shot"
    assert read["jaxtune.json"]["pooling"] == "first"
    shapes = {
        name: value.shape for name, value in load_file(folder / "2_Dense/model.safetensors").items()
    }
    assert shapes == {"linear.weight": (2, 16), "linear.bias": (2,)}
    names = load_file(folder / "model.safetensors")
    assert not any(name.startswith(("bert.", "classifier")) for name in names)


def test_the_same_seed_gives_the_same_bits(finished, config, tmp_path):
    train(config, tmp_path / "again")
    for name in ("model.safetensors", "3_Dense/model.safetensors"):
        one, other = (folder / "model" / name for folder in (finished[0], tmp_path / "again"))
        assert one.read_bytes() == other.read_bytes()


def test_a_class_of_one_text_and_a_bound_on_pairs(config, tmp_path):
    config.data.max_pairs, config.train.num_steps = 8, None
    config.train.num_epochs = 1
    rows = {"text": ["the cat", "a dog", "film"], "label": ["animal", "animal", "film"]}
    done = train(config, tmp_path / "run", rows)
    assert done["steps"] == 1
    told = "4 pairs of texts, 2 of one class (of 2 there are) and 2 of two (of 2), in "
    assert any(told in note for note in done["notes"])


def test_no_step_trains_the_classifier(tiny_settings, tiny_weights):
    run = prepare(tiny_settings("few_shot", "full", tiny_weights("few_shot", "bert", 1)), QUIET)
    labels = paths.flatten(run.tuning.stage_labels[0])
    frozen = {leaf for leaf, name in labels.items() if name == partition.FROZEN}
    assert frozen == {"classifier/kernel", "classifier/bias"} < labels.keys()


def test_such_a_folder_gives_no_embeddings_by_itself(finished, config, tmp_path):
    folder = shutil.copytree(finished[0] / "model", tmp_path / "model")
    config.task, config.model.path, config.model.from_scratch = "embedding", str(folder), False
    with pytest.raises(UserError, match="module 3 is 'Dense'"):
        train(config, tmp_path / "run", {"anchor": ["film"], "positive": ["the film"]})
    (folder / "jaxtune.json").unlink()
    with pytest.raises(UserError, match="module 3 is 'Dense'"):
        jt.load(folder)


@pytest.mark.parametrize("strategy", ["last_layers", "lora", "ia3"])
def test_the_classifier_stands_on_what_a_strategy_trains(strategy, finished, config, tmp_path):
    config.model.path, config.model.from_scratch = str(finished[0] / "model"), False
    config.tuning.name = strategy
    if strategy == "last_layers":
        config.tuning.num_layers = 1
    done = train(config, tmp_path / "run")
    found = jt.evaluate(jt.load(tmp_path / "run" / "model"), make_rows(8, 2))
    assert found == pytest.approx(done["scores"]["test"], abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tuning.name", "head", "nothing but classifier would be trained"),
        ("model.head", "a:b", "model.head is 'a:b'"),
        ("data.text_columns", ("text", "label"), "one name, as each text has a vector"),
        ("loss.name", "ranking", "expected one of cosine_error"),
        ("loss.label_smoothing", 0.1, "loss.label_smoothing is 0.1: expected its default"),
        ("data.class_sampling", 0.5, "no one class for each row"),
        ("data.query_prompt", "q: ", "expected its default, as task is 'few_shot'"),
        ("data.max_pairs", 1, "data.max_pairs is 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(field, value, message, config, tmp_path):
    section, _, name = field.rpartition(".")
    setattr(config[section], name, value)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")


def test_what_is_of_this_task_is_refused_elsewhere(config, tmp_path):
    config.task, config.data.max_pairs = "classification", 8
    with pytest.raises(UserError, match="max_pairs is 8: expected its default"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("label", "message"),
    [("animal", "expected at least 2"), (None, "row 4"), ("film", "are of one class")],
)
def test_labels_that_teach_nothing_are_refused(label, message, config, tmp_path):
    rows = make_rows(8) | {"label": ["animal"] * 8}
    rows["label"][3] = label
    if label == "film":  # the only one of its class
        config.data.max_train_examples = 1
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", rows)
