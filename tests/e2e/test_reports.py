"""The report that a run ends with, and one that is made anew, by the commands."""

import json
import shutil

import numpy as np
import pytest

from jaxtune import __main__ as console
from jaxtune import main
from jaxtune.core.errors import UserError
from jaxtune.run import predictions_folder
from jaxtune.tasks.outcomes.registry import OUTCOMES


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_keeps_what_its_scores_were_made_of(workdir):
    results = json.loads((workdir / "results.json").read_text())
    kept = predictions_folder.read(workdir)
    assert (kept.split, kept.step) == ("test", results["best_step"])
    right = kept.arrays["logits"].argmax(1) == kept.arrays["labels"]
    assert right.mean() == pytest.approx(results["scores"]["test"]["accuracy"])
    losses = kept.arrays["log_sums"] - kept.arrays["label_logits"]
    assert losses.mean() == pytest.approx(results["scores"]["test"]["loss"], rel=1e-5)
    assert len(kept.rows) == min(20, np.count_nonzero(~right))
    assert all(row["texts"][0][0] == "text" for row in kept.rows)


def test_a_run_ends_with_a_report_of_itself(finished, workdir, tmp_path, reports, capsys):
    for name in ("report.html", "model/README.md"):
        (workdir / name).unlink(missing_ok=True)
    main.main([f"--config={finished.parent / 'config.py'}", f"--workdir={workdir}"])
    assert f"report: {workdir / 'report.html'}" in capsys.readouterr().out
    shown = (workdir / "report.html").read_text() + (workdir / "model" / "README.md").read_text()
    for place in (tmp_path, finished.parent):
        assert str(place) not in shown
    assert len([*(workdir / "figures").glob("*.png")]) >= 5


def test_a_report_of_a_run_that_kept_nothing_is_computed(workdir, reports, monkeypatch, capsys):
    monkeypatch.setattr("jaxtune.reporting.write.is_installed", lambda package: False)
    before = predictions_folder.read(workdir)
    (workdir / "model" / "README.md").unlink(missing_ok=True)
    shutil.rmtree(workdir / "predictions")
    console.run(["report", f"--workdir={workdir}"])
    after = predictions_folder.read(workdir)
    assert after._replace(arrays={}, rows=[]) == before._replace(arrays={}, rows=[])
    for name, array in before.arrays.items():
        np.testing.assert_allclose(after.arrays[name], array, rtol=1e-4, atol=1e-4)
    shown = [[row["index"], row["texts"], row["place"]] for row in after.rows]
    assert sorted(shown) == sorted([r["index"], r["texts"], r["place"]] for r in before.rows)
    assert (workdir / "model" / "README.md").exists()


def test_scores_by_the_values_of_a_column(workdir, reports, monkeypatch):
    monkeypatch.setattr("jaxtune.reporting.write.is_installed", lambda package: False)
    console.run(["report", f"--workdir={workdir}", "--slice_by=label"])
    text = (workdir / "report.html").read_text()
    part = text.partition("By label")[2].partition("</table>")[0]
    kept = predictions_folder.read(workdir)
    names = json.loads((workdir / "results.json").read_text())["classes"]
    for i, name in enumerate(names):  # the column is that of the labels: each value is a class
        count = np.count_nonzero(kept.arrays["labels"] == i)
        assert f'<td class="w">{name}</td><td>{count}</td>' in part
    with pytest.raises(UserError, match=r"no such column.*Nearest: label"):
        console.run(["report", f"--workdir={workdir}", "--slice_by=labels"])


def test_where_the_data_is_gone_the_report_is_of_the_scores(workdir, monkeypatch, capsys):
    monkeypatch.setattr("jaxtune.reporting.write.is_installed", lambda package: False)
    shutil.rmtree(workdir / "predictions")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["path"] = str(workdir / "gone")
    (workdir / "config.json").write_text(json.dumps(config))
    console.run(["report", f"--workdir={workdir}"])
    assert "the report is of the scores alone:" in capsys.readouterr().out
    assert "Most confident errors" not in (workdir / "report.html").read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", OUTCOMES)
def test_each_task_keeps_what_gives_its_scores_again(task, tiny_weights, tiny_settings, tmp_path):
    from jaxtune.reporting.write import write
    from jaxtune.run.console import Report
    from jaxtune.run.train import train

    family = {"image_classification": "vit", "causal_lm": "gpt2"}.get(task, "bert")
    settings = tiny_settings(task, "full", tiny_weights(task, family))
    results = train(settings, tmp_path / "run", Report(quiet=True))
    write(tmp_path / "run", Report(quiet=True))
    kept, scores = predictions_folder.read(tmp_path / "run"), results["scores"]["validation"]
    assert (kept.split, kept.step) == ("validation", results["best_step"])
    found = scores_again(kept)
    assert found == pytest.approx({name: scores[name] for name in found}, rel=1e-4, abs=1e-6)
    text = (tmp_path / "run" / "report.html").read_text()
    assert str(tmp_path) not in text
    assert "<svg" in text


def scores_again(kept):
    """Scores of a task from what is kept alone."""
    arrays = kept.arrays
    if kept.task in ("classification", "image_classification"):
        return {"accuracy": (arrays["logits"].argmax(1) == arrays["labels"]).mean()}
    if kept.task == "multi_label":
        hits = np.count_nonzero(arrays["label_logits"] > 0)
        both = len(arrays["label_classes"]) + np.count_nonzero(arrays["logits"] > 0)
        return {"micro_f1": 2 * hits / both}
    if kept.task == "regression":
        return {"mse": ((arrays["predictions"] - arrays["targets"]) ** 2).mean()}
    if kept.task == "token_classification":
        return {"accuracy": (arrays["right"] == arrays["predicted"]).mean()}
    if kept.task == "question_answering":
        return {"f1": arrays["f1"].mean(), "exact_match": arrays["exact"].mean()}
    return {"loss": -arrays["log_likelihoods"].sum() / arrays["counts"].sum()}
