"""report.html, figures/ and the model's card of finished runs: what is in them, and what is not."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from finished_runs import EVIL, MADE, kept_of
from huggingface_hub import ModelCard

from jaxtune.core.errors import UserError
from jaxtune.reporting import figures
from jaxtune.reporting.facts import read_facts
from jaxtune.reporting.places import without_paths
from jaxtune.reporting.write import try_to_write, write
from jaxtune.run.console import Report


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.texts, self.titles, self._in = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._in = tag
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data):
        self.texts.append(data)
        if self._in == "h2":
            self.titles.append(data)

    def handle_endtag(self, tag):
        self._in = None


@pytest.fixture
def painted(request, monkeypatch):
    """Plots are painted, but not written as files, which takes ten times as long."""

    def paint(plot):
        from matplotlib.figure import Figure

        plot.paint(Figure().add_subplot())
        return ET.Element("svg"), b"PNG"

    monkeypatch.setattr(figures, "_draw", paint)


@pytest.fixture
def made(workdir_of, capsys):
    """A function: task, ... -> (workdir, text of the report, the page)."""

    def make(*args, slice_by=None, **fields):
        workdir = workdir_of(*args, **fields)
        write(workdir, Report(), slice_by)
        text = (workdir / "report.html").read_text(encoding="utf-8")
        return workdir, text, Page(text)

    return make


OWN = {
    "classification": ["Classes", "Calibration", "Slices", "Most confident errors"],
    "multi_label": ["Classes", "Thresholds", "Slices", "Most confident errors"],
    "regression": ["Residuals", "Slices", "Largest errors"],
    "token_classification": ["Entities", "Slices", "Worst sentences"],
    "question_answering": [
        *("Answers", "No-answer threshold", "Slices", "Most confident wrong answers"),
    ],
    "causal_lm": ["Blocks", "Slices", "Worst texts"],
}


@pytest.mark.parametrize("task", MADE)
@pytest.mark.usefixtures("painted")
def test_a_report_has_its_sections_and_nothing_of_the_texts_as_markup(task, made, tmp_path):
    workdir, text, page = made(task)
    last = ["Training", "Notes on the data", "To have it again"]
    assert page.titles == ["Scores", "Learning curves", *OWN[task], *last]
    assert "script" not in page.tags
    assert not [link for link in page.links if not link.startswith(("#", "data:image/png"))]
    assert "default-src 'none'" in text
    assert EVIL in "".join(page.texts)
    assert "\x00" not in text
    card = (workdir / "model" / "README.md").read_text()
    shown = text + card
    for secret in (str(tmp_path), "secretplace"):
        assert secret not in shown
    assert "base model" in shown
    names = {path.stem for path in (workdir / "figures").glob("*.png")}
    assert len(names) == page.tags.count("svg") >= 3


DRAWN = [
    task if task == "classification" else pytest.param(task, marks=pytest.mark.exhaustive)
    for task in MADE
]


@pytest.mark.parametrize("task", DRAWN)
def test_the_figures_follow_the_reader_and_are_the_same_each_time(task, made, workdir_of):
    workdir, text, page = made(task)
    assert page.tags.count("svg") == page.tags.count("figure") == text.count("aria-label=")
    assert "var(--a)" in text
    assert "#0072b2" not in text.partition("</style>")[2]
    assert {*re.findall(r"url\(#([^)]+)\)", text)} <= {*re.findall(r'\bid="([^"]+)"', text)}
    links = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert links <= {*re.findall(r'\bid="([^"]+)"', text)}
    found = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    assert sum(file.suffix == ".png" for file in found) == page.tags.count("svg")
    write(workdir, Report(quiet=True))
    again = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    assert found == again
    names = sorted(path.name for path in (workdir / "model").iterdir())
    assert names == ["README.md", "config.json", "jaxtune.json"]


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.usefixtures("painted")
def test_a_report_says_on_which_split_it_is(split, made):
    _, _, page = made("classification", split, card={"temperature": 2.5})
    text = " ".join(page.texts)
    assert f"of the {split} split: 60 examples" in text
    assert "temperature 2.500" in page.texts
    assert ("There is no test split" in text) == (split == "validation")
    assert ("fitted on these same rows" in text) == (split == "validation")


@pytest.mark.usefixtures("painted")
def test_the_surest_errors_come_first_and_texts_unfold(made):
    workdir, _, page = made("classification")
    rows = json.loads((workdir / "predictions" / "shown.json").read_text())["rows"]
    sure = [row["probability"] for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert all(row["said"] != row["right"] for row in rows)
    logits, examples = MADE["classification"]()
    exps = np.exp(logits.astype(np.float64))
    probabilities = (exps / exps.sum(1, keepdims=True)).max(1)
    wrong = logits.argmax(1) != examples.labels
    assert sure == pytest.approx(np.sort(probabilities[wrong])[::-1][:20])
    assert page.tags.count("details") >= len(rows)
    assert f"{rows[0]['index']} {EVIL}" in "".join(page.texts)
    assert f"row or line {rows[0]['place']}" in "".join(page.texts)


@pytest.mark.usefixtures("painted")
def test_the_card_is_read_by_the_library_of_the_hub(workdir_of):
    workdir = workdir_of("classification")
    write(workdir, Report(quiet=True))
    card = ModelCard.load(workdir / "model" / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.tags == ["jaxtune", "lora"]
    assert card.data.base_model is None  # a folder
    assert card.data.license is None
    assert card.data.eval_results == []  # a score that is undefined, and the loss
    text = card.text
    assert "AutoModelForSequenceClassification" in text
    assert "3 of 9 texts were cut to 16 tokens" in text
    assert "- rows/test.csv has no labels" in text


@pytest.mark.usefixtures("painted")
def test_a_card_names_what_is_of_the_hub(workdir_of):
    workdir = workdir_of("regression")
    file = workdir / "config.json"
    config = json.loads(file.read_text())
    config["model"] |= {"path": "owner/base"}
    config["data"] |= {"path": "owner/rows", "sha256": None, "name": "small"}
    file.write_text(json.dumps(config))
    results = json.loads((workdir / "results.json").read_text())
    results["scores"]["test"] = {"pearson": 0.81234567, "loss": 0.1}
    (workdir / "results.json").write_text(json.dumps(results))
    write(workdir, Report(quiet=True))
    data = ModelCard.load(workdir / "model" / "README.md").data
    assert (data.base_model, data.datasets) == ("owner/base", ["owner/rows"])
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("pearsonr", 0.812346)
    assert (result.dataset_type, result.dataset_config) == ("owner/rows", "small")


def test_without_matplotlib_the_report_has_no_figures(workdir_of, monkeypatch, capsys):
    monkeypatch.setattr("jaxtune.reporting.write.is_installed", lambda package: False)
    workdir = workdir_of("classification")
    write(workdir, Report())
    assert 'pip install "jaxtune[report]"' in capsys.readouterr().out
    page = Page((workdir / "report.html").read_text(encoding="utf-8"))
    assert "svg" not in page.tags
    assert "Most confident errors" in page.titles
    assert not (workdir / "figures").exists()


@pytest.mark.usefixtures("painted")
def test_many_classes_take_little_room_and_are_told(made, monkeypatch):
    monkeypatch.setattr("jaxtune.tasks.outcomes.classes.MOST", 4096)
    kept = kept_of("classification", made=MADE["classification"](100, 5000))
    workdir, text, _ = made("classification", kept=kept, card={"temperature": 2.0})
    assert "only the likeliest were kept" in text
    assert "100 of 5000 classes" in text or "of 5000 classes with the lowest F1" in text
    assert "20 of 5,000 classes" in text
    assert len(text) < 400_000
    assert sum(f.stat().st_size for f in (workdir / "predictions").iterdir()) < 200_000


@pytest.mark.parametrize("name", ["config.json", "results.json", "model"])
def test_a_folder_that_is_no_finished_run_is_refused(name, workdir_of):
    workdir = workdir_of("classification")
    (workdir / name).rename(workdir / "other")
    with pytest.raises(UserError, match=f"has no {name}"):
        read_facts(workdir)


def test_a_run_fails_for_no_report(workdir_of, monkeypatch, capsys):
    workdir = workdir_of("classification")
    monkeypatch.setattr("jaxtune.reporting.page.render", lambda *_: 1 / 0)
    try_to_write(workdir, Report())
    assert "no report: ZeroDivisionError: division by zero" in capsys.readouterr().out
    (workdir / "predictions" / "outputs.npz").write_bytes(b"PK")
    try_to_write(workdir, Report())
    told = capsys.readouterr().out
    assert "no report: " in told
    assert "is damaged" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/my data/test.csv has no labels", "my data/test.csv has no labels"),
        ("see /var/x.y/z/file.csv line 3, and a/b or 3/4", "see file.csv line 3, and a/b or 3/4"),
        ("'/a/b/c': no", "'c': no"),
        ("~/runs/x and https://host/a/b", "x and https://host/a/b"),
        (r"C:\Users\me\x.csv is empty", "x.csv is empty"),
    ],
)
def test_of_a_path_the_name_is_left(text, told, workdir_of):
    facts = read_facts(workdir_of("regression"))
    facts.config["data"]["path"] = "/home/me/my data"
    assert without_paths(text, facts) == told
