"""One temperature for all logits: against scipy's minimum and a loop over bins."""

import json
import math

import numpy as np
import pytest
from scipy import optimize, special

from jaxtune.core.errors import UserError
from jaxtune.export.model_folder import read_card
from jaxtune.tasks import calibration, classification, multi_label
from jaxtune.tasks.calibration import (
    calibrate,
    expected_calibration_error,
    fit_temperature,
)


def made(kind, count, classes, scale, seed=0):
    """Logits that are `scale` times as large as the labels, drawn from them, bear out."""
    rng = np.random.default_rng(seed)
    right = rng.normal(size=(count, classes)) * 2
    if kind == "flags":
        labels = (rng.random(right.shape) < special.expit(right)).astype(np.float32)
    else:
        chances = special.softmax(right, axis=1).cumsum(axis=1)
        labels = (rng.random((count, 1)) > chances).sum(axis=1).astype(np.int32)
    return (scale * right).astype(np.float32), labels


def loss(logits, labels, b):
    """The mean negative log-likelihood at 1 / T = b, as its definition has it."""
    z = b * logits.astype(np.float64)
    if labels.ndim == 1:
        return -special.log_softmax(z, axis=1)[np.arange(len(z)), labels].mean()
    return -(labels * special.log_expit(z) + (1 - labels) * special.log_expit(-z)).mean()


@pytest.mark.parametrize("kind", ["classes", "flags"])
@pytest.mark.parametrize(("count", "classes"), [(20, 2), (500, 3), (300, 40)])
@pytest.mark.parametrize("scale", [0.05, 1.0, 7.0, 400.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(kind, count, classes, scale, monkeypatch):
    logits, labels = made(kind, count, classes, scale)
    found = fit_temperature(logits, labels)
    assert found is not None
    best = optimize.minimize_scalar(
        lambda log_b: loss(logits, labels, math.exp(log_b)), bounds=(-12, 12), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert math.log(found) == pytest.approx(-best.x, abs=1e-5)
    assert loss(logits, labels, 1 / found) <= best.fun + 1e-14
    assert found == pytest.approx(scale, rel=0.6)
    monkeypatch.setattr(calibration, "_VALUES", 7 * classes)  # some rows at a time
    assert fit_temperature(logits, labels) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("kind", ["classes", "flags"])
def test_no_temperature_where_there_is_no_least_loss(kind):
    logits, labels = made(kind, 50, 3, 1.0)
    flags = (logits > 0).astype(np.float32)
    right, wrong = (flags, 1 - flags) if kind == "flags" else (logits.argmax(1), logits.argmin(1))
    assert fit_temperature(logits, right) is None
    assert fit_temperature(logits, wrong) is None
    assert fit_temperature(np.zeros_like(logits), labels) is None
    assert "all of validation is right" in calibrate(logits, right).reason
    few = calibrate(logits[:19], labels[:19])
    assert few.temperature is few.ece_calibrated is None
    assert "19 rows, fewer than 20" in few.reason
    assert calibrate(logits[:20], labels[:20]).temperature is not None
    logits[3, 0] = np.inf
    assert "not finite" in calibrate(logits, labels).reason


def error_by_a_loop(probabilities, labels, bins):
    """Guo et al. 2017, equation 3."""
    pairs = []
    for p, y in zip(probabilities, labels, strict=True):
        if np.ndim(y) == 0:
            pairs.append((max(p), float(np.argmax(p) == y)))
        else:
            pairs += zip(p, y, strict=True)
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for i in range(bins):
        inside = [q for q in pairs if edges[i] < q[0] <= edges[i + 1] or (i == 0 and q[0] == 0)]
        if inside:
            sure, right = np.mean(inside, axis=0)
            total += len(inside) / len(pairs) * abs(sure - right)
    return total


@pytest.mark.parametrize("kind", ["classes", "flags"])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_a_loop_over_bins(kind, bins):
    logits, labels = made(kind, 400, 4, 3.0)
    logits = logits.astype(np.float64)
    p = special.softmax(logits, axis=1) if kind == "classes" else special.expit(logits)
    p[:6] = np.eye(4)[[0, 1, 2, 3, 0, 1]]
    p[6], p[7] = (0.2, 0.8, 0, 0), (0.4, 0.6, 0, 0)  # edges of bins
    found = expected_calibration_error(p, labels, bins)
    assert found == pytest.approx(error_by_a_loop(p, labels, bins), abs=1e-12)


def test_an_edge_belongs_to_the_bin_below_it():
    p, flags = np.array([[0.5], [0.1]]), np.array([[1], [0]])
    assert expected_calibration_error(p, flags, 2) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["classes", "flags"])
def test_what_is_too_sure_is_less_so_at_the_temperature(kind, monkeypatch):
    logits, labels = made(kind, 2000, 5, 6.0)
    link = special.expit if kind == "flags" else lambda z: special.softmax(z, axis=1)
    found = calibrate(logits, labels)
    assert found.temperature == pytest.approx(6.0, rel=0.1)
    double = logits.astype(np.float64)
    for told, z in ((found.ece, double), (found.ece_calibrated, double / found.temperature)):
        assert told == pytest.approx(error_by_a_loop(link(z), labels, 15), abs=1e-9)
    assert found.ece_calibrated < found.ece / 5
    monkeypatch.setattr(calibration, "_VALUES", 35)
    assert calibrate(logits, labels)[:3] == pytest.approx(found[:3], rel=1e-9)


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 5.0, 1e6])
def test_probabilities_change_and_predictions_do_not(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)).astype(np.float32)
    logits[:50] = np.nextafter(logits[:50, :1], 9).repeat(3, axis=1)
    logits[:50, 1] = np.nextafter(logits[:50, 1], 9)  # all but equal
    logits[50] = (0, 1e-20, 0)  # apart, whose probabilities are not
    names = ("a", "b", "c")
    for records in (classification.decode(logits, None, names, None, t) for t in (1, temperature)):
        assert [names.index(record["label"]) for record in records] == logits.argmax(1).tolist()
    for records in (multi_label.decode(logits, None, names, None, t) for t in (1, temperature)):
        found = [[name in record["labels"] for name in names] for record in records]
        assert found == (logits > 0).tolist()
    for task, link in (
        (classification, lambda z: special.softmax(z, axis=1)),
        (multi_label, special.expit),
    ):
        plain = task.decode(logits, None, names)
        scaled = task.decode(logits, None, names, None, temperature)
        wanted = link(logits.astype(np.float64) / temperature)
        for one, other, row in zip(plain, scaled, wanted, strict=True):
            assert [*other["probabilities"].values()] == pytest.approx(row.tolist(), abs=1e-12)
            assert one | {"probabilities": 0} == other | {"probabilities": 0}


@pytest.mark.parametrize("wrong", [0, -1.5, float("nan"), float("inf"), 10**400, "1", True])
def test_a_temperature_that_is_none_is_refused(tmp_path, wrong):
    (tmp_path / "jaxtune.json").write_text(json.dumps({"temperature": wrong}))
    with pytest.raises(UserError, match=r"jaxtune.json: temperature is .*Write it as the run did"):
        read_card(tmp_path)


@pytest.fixture
def noisy(tmp_path, write_csv):
    """Texts of which a third has any label, so that no run is right of all of them."""
    rng = np.random.default_rng(0)
    names, rows = ["good", "bad", "so"], []
    for i in range(150):
        label = rng.choice(names) if i % 3 == 0 else names[i % 2]
        rows.append((f"the film is {names[i % 2]} " + " ".join(rng.choice(names, 3)), label))
    return write_csv(tmp_path / "noisy.csv", rows)


def test_a_run_leaves_a_temperature_that_prediction_takes(
    noisy, tiny_weights, tmp_path, monkeypatch, capsys
):
    """Of the outputs at the best step, which are computed again only where that was before."""
    import jaxtune as jt
    from jaxtune.run.scorer import Scorer

    evaluated, whole = [], Scorer.__call__

    def scores(self, params, split):
        evaluated.append(split)
        return whole(self, params, split)

    monkeypatch.setattr(Scorer, "__call__", scores)
    model, workdir = tiny_weights("classification", "bert", 1), tmp_path / "run"
    config = jt.default_config()
    config.model.path, config.data.path, config.data.max_length = str(model), str(noisy), 16
    config.data.validation_size, config.train.batch_size = 60, 16
    config.train.num_steps, config.train.eval_every_steps = 6, 2
    config.optimizer.learning_rate = 0.02
    results = jt.train(config, workdir)
    assert evaluated == ["validation"] * 3
    card = json.loads((workdir / "model" / "jaxtune.json").read_text())
    told = results["calibration"]
    assert card["temperature"] == told["temperature"]
    assert f"{told['ece_calibrated']:.4f} at temperature" in capsys.readouterr().out
    scaled = jt.load(workdir / "model")
    plain = scaled._replace(saved=scaled.saved._replace(card={**card, "temperature": None}))
    texts = ["the film is good", "so bad"]
    for one, other in zip(plain.predict(texts), scaled.predict(texts), strict=True):
        z = np.log([*one["probabilities"].values()]) / told["temperature"]
        assert [*other["probabilities"].values()] == pytest.approx(special.softmax(z).tolist())
        assert one["label"] == other["label"]
    (workdir / "results.json").unlink()  # what a run that is killed at its end does not have
    evaluated.clear()
    again = jt.train(config, workdir)
    assert evaluated == ["validation"]
    assert again["calibration"] == told
    assert json.loads((workdir / "model" / "jaxtune.json").read_text()) == card
