"""`jaxtune new`: from a file never seen to a trained model, by the commands that it prints."""

import csv
import json
import shlex

import pytest
from conftest import make_rows

from jaxtune import __main__ as console
from jaxtune.drafting import machine
from jaxtune.drafting.recipe import Size, recipe
from jaxtune.run.cli import run_command
from jaxtune.run.config import load_config


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """A function: flags -> status, what it prints, and what it says is wrong, in a folder."""
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        status = run_command(console.run, ["new", *flags])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def write(path, rows, header=("text", "label"), encoding="utf-8", **options):
    with open(path, "w", newline="", encoding=encoding) as stream:
        writer = csv.writer(stream, **options)
        writer.writerows([header] if header else [])
        writer.writerows(rows)


ROWS = make_rows(60, 0)
NEW = make_rows(9, 1)

ODD = {
    "semicolons in latin-1, blanks in the header": {
        "header": (" Kommentar", "Urteil "),
        "encoding": "latin-1",
        "delimiter": ";",
        "prefix": "é ",
    },
    "tabs behind a byte order mark": {"encoding": "utf-8-sig", "delimiter": "\t"},
    "line ends and quotes in quotes": {"prefix": 'the "film"\n\n', "lineterminator": "\r\n"},
    "no header": {"header": None, "delimiter": "|"},
    "utf-16 in a name with blanks": {"encoding": "utf-16", "name": "my data (2).csv"},
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if i == 0 else pytest.mark.exhaustive)
        for i, case in enumerate(ODD)
    ],
)
def test_from_a_file_never_seen_to_labels(case, new, flat, tmp_path, capsys):
    options = dict(ODD[case])
    name, prefix = options.pop("name", "my.csv"), options.pop("prefix", "")
    write(name, [(f"{prefix}{text}", label) for text, label in ROWS], **options)
    status, told, wrong = new(name, f"--model={flat}")
    assert (status, wrong) == (0, "")
    train, predict = told.partition("read it, then\n")[2].splitlines()[:2]
    short = "--config.train.num_epochs=1"  # of the 20 that so few rows get
    assert run_command(console.run, [*shlex.split(train)[1:], short]) == 0
    header = options.pop("header", ("text", "label")) or ("text", "label")
    write("new.csv", [(f"{prefix}{text}", "") for text, _ in NEW], header, **options)
    capsys.readouterr()
    status = run_command(console.run, shlex.split(predict)[1:])
    assert status == 0, capsys.readouterr().err
    with open("labels.csv", encoding="utf-8", newline="") as stream:
        rows = [*csv.DictReader(stream)]
    # Beside an empty column of that name, which is the input's.
    found = [row.get("predicted_label", row["label"]) for row in rows]
    assert len(found) == len(NEW)
    assert {*found} <= {label for _, label in ROWS}


def test_it_tells_what_it_took_for_what(new):
    rows = [(i, text, len(label) + i % 3) for i, (text, label) in enumerate(ROWS)]
    write("r.csv", rows, ("id", "review", "stars"))
    _, told, _ = new("r.csv", "--output=out/mine.py")
    assert "r.csv: 60 training rows" in told
    assert "learnt    'stars': classes, " in told
    assert "-         'id': a different value in each row" in told
    for i in range(3):
        assert f"row {i + 1}     review='{ROWS[i][0]}'" in told
    assert (
        "sentence-transformers/all-MiniLM-L6-v2 (small, for a CPU; --model names another)" in told
    )
    assert "not sure: the " in told
    assert "jaxtune train --config=out/mine.py --workdir=runs/mine\n" in told
    settings = load_config("out/mine.py", {})
    assert settings.data.columns.text_columns == ("review",)


def test_texts_of_several_classes_are_counted(new):
    other = next(label for _, label in ROWS if label != ROWS[0][1])
    write("my.csv", [*ROWS, (ROWS[0][0], other)])
    _, told, _ = new("my.csv")
    assert "note: 1 text stands there more than once, in different classes\n" in told


def test_no_file_is_replaced_unless_told(new, tmp_path):
    write("my.csv", ROWS)
    (tmp_path / "my.py").write_text("mine")
    status, _, wrong = new("my.csv")
    assert (status, (tmp_path / "my.py").read_text()) == (2, "mine")
    assert "my.py is there already" in wrong
    assert "--overwrite" in wrong
    assert new("my.csv", "--overwrite")[0] == 0
    assert "get_config" in (tmp_path / "my.py").read_text()


def test_names_that_are_free(new, tmp_path):
    """No config hides a module of those who run Python beside it; no run is gone on with."""
    write("random.csv", ROWS)
    (tmp_path / "runs" / "random_config").mkdir(parents=True)
    _, told, _ = new("random.csv")
    assert "--config=random_config.py --workdir=runs/random_config-2" in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "needs the path of your data"),
        (("nothing.csv",), "nothing.csv: does not exist in this folder."),
        (("my.csv", "--data=my.csv"), "give one"),
        (("my.csv", "--output=my.txt"), "ends in .py"),
        (("my.csv", "--task=regresion"), "Nearest: regression"),
        (("my.csv", "--text_columns=txt"), "Nearest: text"),
        (("my.csv", "--label_column=lable"), "Nearest: label"),
        (("my.csv", "--modle=x"), "Nearest: --model=x"),
        (("my.csv", "--model=runs/gone/model"), "does not exist"),
        (("my.csv", "more.csv"), "takes no more.csv"),
    ],
)
def test_what_a_person_gets_wrong(new, flags, told, tmp_path):
    write("my.csv", ROWS)
    status, _, wrong = new(*flags)
    assert status == 2
    assert told in wrong
    assert wrong.count("\n") == 1
    assert not (tmp_path / "my.py").exists()


def test_what_a_file_holds_steers_no_terminal_and_no_python(new, tmp_path):
    odd = 'label\x1b[2J\u202e"""\nimport os'
    write('a"""b.csv', [(f"{text} \x1b[31m", label) for text, label in ROWS], ("text", odd))
    status, told, wrong = new('a"""b.csv', f"--label_column={odd}", "--output=c.py")
    assert (status, wrong) == (0, "")
    assert "\x1b" not in told
    written = (tmp_path / "c.py").read_text(encoding="utf-8")
    assert not any(sign in written for sign in ("\x1b", "\u202e"))
    assert load_config("c.py", {}).data.columns.label_column == odd


def test_a_model_of_another_kind_is_refused(new, tiny_families):
    write("my.csv", ROWS)
    status, _, wrong = new("my.csv", f"--model={tiny_families['vit']}")
    assert status == 2
    assert "no head for this task" in wrong


def test_a_model_that_reads_from_left_to_right_goes_on_with_texts(new, tiny_families):
    write("my.csv", [(text,) for text, _ in ROWS], ("text",))
    assert new("my.csv", f"--model={tiny_families['gpt2']}")[0] == 0
    assert load_config("my.py", {}).task == "causal_lm"


MINI, BASE, LARGE = (Size("bert", width, 12) for width in (384, 768, 1024))


def chosen(task, size, rows):
    return {choice.setting: choice.value for choice in recipe(task, size, rows)}


def test_few_rows_are_seen_more_often():
    epochs = [chosen("classification", MINI, rows)["train.num_epochs"] for rows in (
        *(50, 200, 900, 3_000, 30_000, 300_000),
    )]  # fmt: skip
    assert epochs == [20, 20, 5, 4, 3, 2]
    patient = [chosen("classification", BASE, rows).get("train.patience") for rows in (500, 9_000)]
    assert patient == [5, None]


def test_rates_are_those_of_the_papers():
    rate = "optimizer.learning_rate"
    found = [chosen("classification", size, 1_000)[rate] for size in (MINI, BASE, LARGE)]
    assert found == [1e-4, 2e-5, 1e-5]
    # Those of the runs that benchmarks/RESULTS.md has of WNUT-17 and STS-B.
    assert chosen("token_classification", MINI, 3_394)[rate] == 3e-4
    assert chosen("regression", MINI, 5_749)[rate] == 5e-5
    assert chosen("classification", Size("gpt2", 768, 12), 1_000)[rate] == 6.25e-5
    assert chosen("few_shot", BASE, 32) == chosen("few_shot", MINI, 256)
    assert chosen("few_shot", BASE, 32)[rate] == 2e-5


@pytest.mark.parametrize(("flags", "quick"), [("fpu avx512_bf16", True), ("fpu avx512f", False)])
def test_bfloat16_is_suggested_where_the_cpu_has_it(flags, quick, new, tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "_CPU_INFO", info)
    write("my.csv", ROWS)
    new("my.csv")
    written = (tmp_path / "my.py").read_text()
    assert ('\n    # config.precision.compute_dtype = "bfloat16"\n' in written) == quick
    assert load_config("my.py", {}).precision.compute_dtype == "float32"


def test_another_language_takes_a_model_of_many(new):
    rows = [
        (f"Das Zimmer {i} war leider sehr laut und nicht sauber", "ab"[i % 2]) for i in range(60)
    ]
    write("my.csv", rows)
    _, told, _ = new("my.csv")
    assert "distilbert-base-multilingual-cased (of many languages, as common English words" in told


def test_what_is_not_on_this_machine_is_not_fetched(new, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(path, **options):
        asked.append(options.get("local_files_only"))
        raise OSError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    write("my.csv", ROWS)
    assert new("my.csv", "--model=someone/some-large-model")[0] == 0
    assert asked
    assert all(asked)
    assert load_config("my.py", {}).optimizer.learning_rate == 1e-5  # its name says large


def test_json_lines_are_predicted_as_json_lines(new):
    with open("my.jsonl", "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": t, "labels": [n]}) + "\n" for t, n in ROWS)
    _, told, _ = new("my.jsonl")
    assert "--input=new.jsonl --output=labels.jsonl\n" in told
