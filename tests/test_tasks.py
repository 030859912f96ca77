import math
import tracemalloc
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics

from jaxtune.core.errors import UserError
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.text.word_tokens import Words
from jaxtune.tasks import classification, multi_label, regression
from jaxtune.tasks.registry import TASKS, find_task
from jaxtune.tasks.task import check_top_k, records_of


def labelled(labels):
    """Examples of which only the labels are looked at."""
    return SimpleNamespace(labels=np.asarray(labels))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 5])
def test_classification_scores_are_those_of_scikit_learn(seed, classes):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(40, classes)).astype(np.float32)
    labels = rng.integers(0, classes, 40).astype(np.int32)
    predicted = [max(range(classes), key=lambda c, row=row: row[c]) for row in outputs]
    scores = classification.scores({}, outputs, labelled(labels))
    assert scores["accuracy"] == pytest.approx(np.mean(np.array(predicted) == labels))
    f1 = [metrics.f1_score(labels == c, np.array(predicted) == c) for c in range(classes)]
    assert scores["macro_f1"] == pytest.approx(np.mean(f1))
    assert scores["mcc"] == pytest.approx(np.corrcoef(*_one_hot(labels, predicted))[0, 1])


def _one_hot(labels, predicted):
    """Matthews' correlation is Pearson's of the centred indicator matrices."""
    a, b = (np.eye(5)[np.asarray(x)] for x in (labels, predicted))
    return (a - a.mean(0)).ravel(), (b - b.mean(0)).ravel()


@pytest.mark.parametrize(
    ("labels", "predicted", "accuracy", "macro_f1", "mcc"),
    [
        ([0, 0, 1, 1], [1, 1, 1, 1], 0.5, 1 / 3, 0.0),  # constant predictions
        ([1, 1, 1], [1, 1, 1], 1.0, 1.0, 0.0),  # a single class everywhere
        ([2], [0], 0.0, 0.0, 0.0),  # one example
        ([0, 1], [0, 1], 1.0, 1.0, 1.0),  # class 2 is in neither and does not count
    ],
)
def test_classification_scores_at_the_edges(labels, predicted, accuracy, macro_f1, mcc):
    outputs = np.eye(3, dtype=np.float32)[predicted]
    scores = classification.scores({}, outputs, labelled(labels))
    assert scores == pytest.approx({"accuracy": accuracy, "macro_f1": macro_f1, "mcc": mcc})
    assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize("seed", range(3))
def test_classification_batch_metrics_are_weighted_sums(seed):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(12, 3)).astype(np.float32)
    batch = {
        "labels": rng.integers(0, 3, 12).astype(np.int32),
        "weight": rng.choice([0.0, 1.0], 12).astype(np.float32),
    }
    found = classification.batch_metrics(jnp.asarray(outputs), batch)
    used = batch["weight"] > 0
    correct = outputs[used].argmax(1) == batch["labels"][used]
    assert float(found["accuracy"].total) == correct.sum()
    assert float(found["accuracy"].weight) == used.sum()
    loss = metrics.log_loss(
        batch["labels"][used], special.softmax(outputs[used], 1), labels=range(3)
    )
    assert float(found["loss"].value) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e30])
def test_classification_decode_gives_probabilities(spread):
    outputs = (spread * np.random.default_rng(0).normal(size=(20, 3))).astype(np.float32)
    names = ("no", "maybe", "yes")
    records = classification.decode(outputs, None, names)
    expected = special.softmax(outputs.astype(np.float64), axis=1)
    for row, record, probabilities in zip(outputs, records, expected, strict=True):
        assert record["label"] == names[int(np.argmax(row))]
        assert tuple(record["probabilities"]) == names
        assert list(record["probabilities"].values()) == pytest.approx(probabilities.tolist())
        assert math.fsum(record["probabilities"].values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("task", [classification, multi_label])
@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_the_likeliest_classes_are_those_of_a_stable_sort(task, count):
    outputs = np.random.default_rng(0).integers(-3, 3, (30, 17)).astype(np.float32)  # with ties
    names = tuple(f"class {i}" for i in range(17))
    whole, best = (task.decode(outputs, None, names, top_k) for top_k in (None, count))
    assert len(whole) == len(best) == 30
    for one, other in zip(whole, best, strict=True):
        pairs = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])
        assert [*other["probabilities"].items()] == pairs[:count]
        assert one | {"probabilities": 0} == other | {"probabilities": 0}
    assert best[-1] == best[29] == best[29:][0]
    with pytest.raises(IndexError):
        best[30]


@pytest.mark.parametrize("count", [1, 10, None])
def test_records_of_many_classes_are_in_memory_one_at_a_time(count):
    outputs = np.zeros((200, 5000), np.float32)
    names = tuple(f"class {i}" for i in range(5000))
    tracemalloc.start()
    for record in classification.decode(outputs, None, names, count):
        assert len(record["probabilities"]) == (count or 5000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 * 5000 * 4 / 2  # all records at once would take a hundred times that


def test_tasks_that_rank_no_classes_take_no_top_k():
    ranking = {name for name, task in TASKS.items() if task.output.ranks}
    assert ranking == {"classification", "few_shot", "image_classification", "multi_label"}
    with pytest.raises(UserError, match="top_k is 3, but regression ranks no classes"):
        check_top_k(find_task("regression"), 3)
    with pytest.raises(UserError, match="expected at least 1"):
        check_top_k(classification.CLASSIFICATION, 0)


@pytest.mark.parametrize("classes", [2, 3, 400])
def test_classification_scores_are_the_bits_of_scikit_learn(classes, recwarn):
    rng = np.random.default_rng(classes)
    outputs = rng.normal(size=(1000, classes)).astype(np.float32)
    labels = np.where(rng.random(1000) < 0.6, outputs.argmax(1), rng.integers(0, classes + 3, 1000))
    found = classification.scores({}, outputs, labelled(labels.astype(np.int32)))
    predicted = outputs.argmax(1)
    assert found == {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "mcc": metrics.matthews_corrcoef(labels, predicted),
    }


def test_scores_of_many_classes_need_no_matrix_of_them():
    outputs = np.zeros((50, 6000), np.float32)
    outputs[np.arange(50), np.arange(50) * 100] = 1
    labels = np.arange(50, dtype=np.int32) * 100
    tracemalloc.start()
    found = classification.scores({}, outputs, labelled(labels))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == {"accuracy": 1.0, "macro_f1": 1.0, "mcc": 1.0}
    assert peak < 6000 * 6000


def test_classification_decode_refuses_other_numbers_of_names():
    with pytest.raises(ValueError, match="2 names of classes, but 3 outputs"):
        classification.decode(np.zeros((1, 3), np.float32), None, ("no", "maybe"))


@pytest.mark.parametrize("seed", range(5))
def test_regression_scores_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(40, 1)).astype(np.float32)
    labels = np.round(rng.normal(size=40) + outputs[:, 0], 1).astype(np.float32)  # with ties
    scores = regression.scores({}, outputs, labelled(labels))
    assert scores["pearson"] == pytest.approx(np.corrcoef(outputs[:, 0], labels)[0, 1], rel=1e-6)
    ranks = [stats.rankdata(x) for x in (outputs[:, 0], labels)]
    assert scores["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert scores["mse"] == pytest.approx(np.mean((outputs[:, 0] - labels) ** 2), rel=1e-5)
    assert all(type(value) is float for value in scores.values())


@pytest.mark.parametrize(
    ("predicted", "labels"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([1], [2])]
)
def test_regression_correlations_of_constants_are_nan(predicted, labels):
    scores = regression.scores({}, np.array(predicted, np.float32)[:, None], labelled(labels))
    assert math.isnan(scores["pearson"])
    assert math.isnan(scores["spearman"])
    assert scores["mse"] == pytest.approx(np.mean((np.array(predicted) - labels) ** 2))


def test_regression_scores_of_nearly_constant_predictions_do_not_warn():
    predicted = np.array([[1.0], [1.0], [np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    scores = regression.scores({}, predicted, labelled([1, 2, 3]))
    assert set(scores) == {"pearson", "spearman", "mse"}


def test_regression_scores_of_diverged_outputs_are_nan():
    scores = regression.scores({}, np.full((3, 1), np.nan, np.float32), labelled([0, 1, 2]))
    assert all(math.isnan(value) for value in scores.values())


def test_regression_batch_metrics_and_decode():
    outputs = np.array([[1.5], [2.0], [9.0]], np.float32)
    batch = {"labels": np.array([1, 2, 0], np.float32), "weight": np.array([1, 1, 0], np.float32)}
    loss = regression.batch_metrics(jnp.asarray(outputs), batch)["loss"]
    assert (float(loss.total), float(loss.weight)) == (0.25, 2.0)
    assert regression.decode(outputs, None, ()) == [{"value": 1.5}, {"value": 2.0}, {"value": 9.0}]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_whole(name):
    task = find_task(name)
    assert task.name == name
    assert task.scores.best in task.scores.higher_is_better
    assert task.scores.higher_is_better["loss"] is False


@pytest.mark.parametrize("name", ["classification", "multi_label", "regression"])
def test_directions_are_known_for_every_score(name):
    task = find_task(name)
    outputs = np.random.default_rng(0).normal(size=(6, 1 if name == "regression" else 2))
    labels = np.array([0, 1, 0, 1, 1, 0])
    if name == "multi_label":
        labels = np.stack([labels, 1 - labels], axis=1)
    scores = task.scores.compute({}, outputs.astype(np.float32), labelled(labels))
    assert {*scores, "loss"} == set(task.scores.higher_is_better)


def test_find_task_refuses_an_unknown_name():
    with pytest.raises(UserError, match=r"config.task is 'regresion'.*Nearest: regression"):
        find_task("regresion")


# --- Rows without an answer -----------------------------------------------------------------------


def answered(task, source, columns=()):
    """The records of new rows under a model of two classes that says the same of each."""
    rows = task.data.read_new(source, columns, "utf-8")
    count = len(rows.inputs)
    examples = SimpleNamespace(
        info=[Words(s, np.zeros(len(s.spans), int), None) for s in rows.inputs]
        if task.name == "token_classification"
        else list(range(count))
    )
    outputs = np.tile(np.array([0.0, 9.0], np.float32), (count, 1))
    if task.name == "token_classification":
        outputs = outputs[:, None]
    return records_of(task, outputs[:, :1] if task is regression.REGRESSION else outputs,
                      examples, ("O", "b"), rows)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "empty"),
    [
        ("classification", {"label": "", "probabilities": {}}),
        ("multi_label", {"labels": [], "probabilities": {}}),
        ("regression", {"value": None}),
        ("token_classification", {"entities": [], "tags": [], "text": ""}),
        ("causal_lm", {"perplexity": None, "tokens": None}),
    ],
)
@pytest.mark.parametrize("content", ["good\n\nbad\n", "good\n \u3000\nbad\n"])
def test_an_empty_line_has_an_empty_record_with_a_reason(tmp_path, name, empty, content):
    (tmp_path / "new.txt").write_text(content)
    first, second, third = answered(find_task(name), tmp_path / "new.txt")
    assert second.keys() == first.keys() == third.keys()
    assert "new.txt line 2" in second.pop("reason")
    assert second.items() >= empty.items()
    assert first["reason"] is third["reason"] is None
    (tmp_path / "new.txt").write_text("good\nbad\n")
    assert all("reason" not in row for row in answered(find_task(name), tmp_path / "new.txt"))


def test_pairs_of_which_one_text_is_missing():
    pairs = from_memory({"a": ["x", None, "y"], "b": ["1", "2", float("nan")]}, "rows")
    found = answered(classification.CLASSIFICATION, pairs, ("a", "b"))
    assert [bool(record["label"]) for record in found] == [True, False, False]
    reasons = [record["reason"] for record in found]
    assert "column 'a' is empty" in reasons[1]
    assert "column 'b' is empty" in reasons[2]


def test_a_question_without_a_context_keeps_its_id():
    columns = {"id": ["p", "q"], "question": ["Who?", "Who?"], "context": ["", "He."]}
    rows = find_task("question_answering").data.read_new(from_memory(columns, "rows"), (), "utf-8")
    assert [question.id for question in rows.inputs] == ["p", "q"]
    records = [{"id": name, "answer": "-", "start": 0, "n_best": [1]} for name in "pq"]
    output = SimpleNamespace(decode=lambda *_: records)
    first, second = records_of(SimpleNamespace(output=output), None, None, (), rows)
    assert first | {"reason": ""} == {
        "id": "p", "answer": "", "start": None, "n_best": [], "reason": "",
    }  # fmt: skip
    assert second == records[1] | {"reason": None}


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_multi_label_scores_are_the_bits_of_scikit_learn(classes, recwarn):
    rng = np.random.default_rng(classes)
    outputs = rng.normal(-1, 1, size=(500, classes)).astype(np.float32)
    flags = (outputs > 0) ^ (rng.random((500, classes)) < 0.3 / classes)
    beyond = rng.random((500, 2)) < 0.01  # classes that the model does not have
    labels = np.concatenate([flags, beyond], axis=1).astype(np.float32)
    found = multi_label.scores({}, outputs, labelled(labels))
    predicted = np.pad(outputs > 0, ((0, 0), (0, 2)))
    assert found == {
        "micro_f1": metrics.f1_score(labels, predicted, average="micro", zero_division=0),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro", zero_division=0),
        "subset_accuracy": metrics.accuracy_score(labels, predicted),
    }
