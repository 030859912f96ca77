"""What a person gets wrong: exit status 2 and one line that says where, and what to do."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxtune import main, predict
from jaxtune.run.cli import run_command
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare

ROOT = Path(__file__).parents[2]
TRAIN = [("good food", "good"), ("great film", "good"), ("bad car", "bad"), ("poor book", "bad")]
TRAIN += [(f"{text} {word}", label) for text, label in TRAIN for word in ("today", "again")]
HELD = [("very good", "good"), ("very bad", "bad")]


@dataclasses.dataclass(frozen=True)
class World:
    """A model, data and a config that are right, until a test spoils one of them."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def workdir(self) -> Path:
        return self.root / "run"

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    def write(self, name: str, rows: list, header: tuple[str, ...] = ("text", "label")) -> None:
        lines = [",".join(row) for row in (header, *rows)]
        (self.data / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def edit_model(self, **fields: Any) -> None:
        file = self.model / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    def train(self, *more: str) -> list[str]:
        return [f"--config={self.config}", f"--workdir={self.workdir}", *more]

    def predict(self, model: Path, source: str = "in.txt", to: str = "out.csv", *more: str):
        return [
            f"--model={model}",
            f"--input={self.root / source}",
            f"--output={self.root / to}",
            *more,
        ]


def make_world(root: Path, golden: Path) -> World:
    world = World(root)
    shutil.copytree(golden / "odd", world.model)
    world.data.mkdir()
    world.write("train.csv", TRAIN)
    world.write("validation.csv", HELD)
    config = {
        "model": {"path": str(world.model)},
        "data": {"path": str(world.data), "max_length": 8, "layout": "padded"},
        "tuning": {"name": "last_layers", "num_layers": 0},
        "train": {"num_steps": 2, "batch_size": 4, "eval_batch_size": 4, "eval_every_steps": 1},
    }
    world.config.write_text(json.dumps(config))
    (root / "in.txt").write_text("good food\nbad film\n")
    return world


@pytest.fixture
def world(tmp_path, golden) -> World:
    return make_world(tmp_path, golden)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, golden) -> World:
    """A world whose run of two steps is done."""
    world = make_world(tmp_path_factory.mktemp("finished"), golden)
    assert run_command(main.main, world.train()) == 0
    return world


@pytest.fixture
def resumable(world, finished) -> World:
    """A world with a copy of the finished run, which the same command would go on with."""
    shutil.copytree(finished.workdir, world.workdir)
    file = world.workdir / "config.json"
    file.write_text(file.read_text().replace(str(finished.root), str(world.root)))
    return world


def check(status: int, err: str, words: tuple[str, ...]) -> None:
    """Status 2, and one line on stderr that holds the words."""
    assert status == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1, "one line"
    for word in words:
        assert word in err


# --- Command line and config ----------------------------------------------------------------


def misspelt_field(world):
    return world.train("--config.train.batchsize=3")


def no_value(world):
    return world.train("--config.seed")


def bad_number(world):
    return world.train("--config.optimizer.learning_rate=fast")


def out_of_range(world):
    return world.train("--config.train.batch_size=0")


def no_config(world):
    world.config.unlink()
    return world.train()


def damaged_config(world):
    world.config.write_text("{")
    return world.train()


def python_config(world):
    file = world.root / "mine.py"
    file.write_text(
        "from jaxtune.run.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.optimizer.learning_rat = 1.0\n"
        "    return config\n"
    )
    return [f"--config={file}", f"--workdir={world.workdir}"]


def unknown_metric(world):
    return world.train("--config.train.best_metric=acuracy")


def unknown_strategy(world):
    return world.train("--config.tuning.name=last_layer")


def strategy_without_its_field(world):
    return world.train("--config.tuning.num_layers=None")


def too_many_layers(world):
    return world.train("--config.tuning.num_layers=4")


def field_of_another_strategy(world):
    return world.train("--config.tuning.name=full")


# --- Model ----------------------------------------------------------------------------------


def no_model(world):
    return world.train(f"--config.model.path={world.root / 'modle'}")


def other_architecture(world):
    world.edit_model(model_type="t5")
    return world.train()


def pickled(world):
    (world.model / "model.safetensors").rename(world.model / "pytorch_model.bin")
    return world.train()


def truncated_weights(world):
    file = world.model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    return world.train()


def other_digest(world):
    return world.train("--config.model.sha256=" + "0" * 64)


def layer_missing(world):
    world.edit_model(num_hidden_layers=4)
    return world.train()


def too_long(world):
    return world.train("--config.data.max_length=42")


def no_tokenizer(world):
    for file in world.model.glob("*"):
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    return world.train()


def damaged_tokenizer(world):
    (world.model / "tokenizer.json").write_text("{")
    return world.train()


def larger_tokenizer(world):
    tensors = load_file(world.model / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:90])
    save_file(tensors, world.model / "model.safetensors")
    world.edit_model(vocab_size=90)
    return world.train()


def pairs_for_one_type(world):
    tensors = load_file(world.model / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    tensors[name] = np.ascontiguousarray(tensors[name][:1])
    save_file(tensors, world.model / "model.safetensors")
    world.edit_model(type_vocab_size=1)
    return world.train("--config.data.text_columns=text,label")


# --- Data -----------------------------------------------------------------------------------


def no_data(world):
    return world.train(f"--config.data.path={world.data / 'trian.csv'}")


def no_train_file(world):
    (world.data / "train.csv").rename(world.data / "first.csv")
    return world.train()


def unseen_label(world):
    world.write("validation.csv", [*HELD, ("so so", "godo")])
    return world.train()


def empty_text(world):
    world.write("train.csv", [*TRAIN[:2], ("  ", "bad"), *TRAIN[2:]])
    return world.train()


def missing_column(world):
    return world.train("--config.data.text_columns=txet")


def missing_label_column(world):
    return world.train("--config.data.label_column=lable")


def wrong_encoding(world):
    (world.data / "train.csv").write_bytes("text,label\ngood,a\nschön,b\n".encode("latin-1"))
    return world.train()


def unknown_encoding(world):
    return world.train("--config.data.encoding=latin-99")


def one_class(world):
    world.write("train.csv", [(text, "good") for text, _ in TRAIN])
    return world.train()


def too_few_rows(world):
    (world.data / "validation.csv").unlink()
    world.write("train.csv", TRAIN[1:3])
    return world.train()


def too_many_held_out(world):
    (world.data / "validation.csv").unlink()
    return world.train("--config.data.validation_size=500")


def nan_target(world):
    world.write("train.csv", [("good", "1.5"), ("bad", "nan"), ("so", "2")])
    return world.train("--config.task=regression")


def text_target(world):
    return world.train("--config.task=regression")


def ragged_row(world):
    world.write("train.csv", [*TRAIN, ("good, very good", "good")])
    return world.train()


# --- Workdir --------------------------------------------------------------------------------


def workdir_is_a_file(world):
    world.workdir.write_text("")
    return world.train()


def workdir_below_a_file(world):
    return [f"--config={world.config}", f"--workdir={world.config / 'run'}"]


def workdir_of_checkpoints_alone(world):
    (world.workdir / "checkpoints").mkdir(parents=True)
    return world.train()


def nothing_to_score(world):
    return world.train("--mode=eval", f"--config.model.path={world.root / 'bare'}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (misspelt_field, ("config.train", "'batchsize'", "Nearest: batch_size")),
        (no_value, ("--config.seed has no value", "--config.seed=VALUE")),
        (bad_number, ("config.optimizer.learning_rate", "'fast'", "a number")),
        (out_of_range, ("config.train.batch_size is 0", "at least 1")),
        (no_config, ("--config=", "config.json", "no such file")),
        (damaged_config, ("config.json is not valid JSON",)),
        (python_config, ("mine.py line 4", "'learning_rat'", "Nearest: learning_rate")),
        (unknown_metric, ("config.train.best_metric is 'acuracy'", "Nearest: accuracy")),
        (unknown_strategy, ("config.tuning.name", "Nearest: last_layers")),
        (strategy_without_its_field, ("config.tuning.num_layers must be set",)),
        (too_many_layers, ("config.tuning.num_layers is 4", "0 to 3")),
        (field_of_another_strategy, ("config.tuning.num_layers", "'full' has no num_layers")),
        (no_model, ("modle does not exist",)),
        (other_architecture, ("model/config.json", "'t5'", "jaxtune loads bert")),
        (pickled, ("pytorch_model.bin", "pickle", "save_pretrained")),
        (truncated_weights, ("model.safetensors is damaged", "Fetch it again")),
        (other_digest, ("sha256", "config.model.sha256")),
        (layer_missing, ("bert.encoder.layer.3.attention", "missing from model.safetensors")),
        (too_long, ("config.data.max_length is 42", "41 positions")),
        (no_tokenizer, ("has no tokenizer", "tokenizer.json")),
        (damaged_tokenizer, ("has no tokenizer", "tokenizer.json")),
        (larger_tokenizer, ("tokenizer has 101 tokens", "90 word embeddings")),
        (pairs_for_one_type, ("token_type_ids up to 1", "type_vocab_size 1")),
        (no_data, ("trian.csv", "Nearest: train.csv")),
        (no_train_file, ("no train file", "first.csv")),
        (unseen_label, ("validation.csv line 4", "'godo'", "Nearest: good")),
        (empty_text, ("train.csv line 4", "'text'", "not empty")),
        (missing_column, ("train.csv line 1", "'txet'", "Nearest: text", "text_columns")),
        (missing_label_column, ("'lable'", "Nearest: label", "label_column")),
        (wrong_encoding, ("train.csv line 3", "0xf6", "config.data.encoding")),
        (unknown_encoding, ("config.data.encoding 'latin-99'", "latin-1")),
        (one_class, ("1 class", "'label'", "at least 2")),
        (too_few_rows, ("Cannot hold out", "of 2 rows")),
        (too_many_held_out, ("Cannot hold out 500 of 12 rows",)),
        (nan_target, ("train.csv line 3", "'nan'", "finite number")),
        (text_target, ("train.csv line 2", "'good'", "finite number")),
        (ragged_row, ("train.csv line 14", "3 fields", "expected 2")),
        (workdir_is_a_file, ("--workdir=", "run", "another --workdir")),
        (workdir_below_a_file, ("--workdir=", "another --workdir")),
        (workdir_of_checkpoints_alone, ("checkpoints but no config.json", "--workdir")),
        (nothing_to_score, ("no usable head", "Fine-tune it first")),
    ],
)
def test_training(world, golden, capsys, spoil: Callable[[World], list[str]], words):
    shutil.copytree(golden / "odd_bare", world.root / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(golden / "odd" / name, world.root / "bare")
    argv = spoil(world)
    before = sorted(world.root.rglob("*"))
    status = run_command(main.main, argv)
    check(status, capsys.readouterr().err, words)
    assert sorted(world.root.rglob("*")) == before, "nothing is written"


# --- Going on -------------------------------------------------------------------------------


def another_config(world):
    return world.train("--config.seed=3", "--config.train.batch_size=5")


def another_text(world):
    world.write("train.csv", [*TRAIN, ("new", "good")])
    return world.train()


def damaged_run_config(world):
    (world.workdir / "config.json").write_text('{"task": ')
    return world.train()


def binary_run_config(world):
    (world.workdir / "config.json").write_bytes(b"\xff\xfe")
    return world.train()


def list_for_a_run_config(world):
    (world.workdir / "config.json").write_text("[1]")
    return world.train()


def damaged_checkpoint(world):
    """The only one; where there are others, the run goes on from the one before."""
    (world.workdir / "results.json").unlink()  # else the run is done, and nothing is read
    for other in {*(world.workdir / "checkpoints").iterdir()}:
        if other.name != "2":
            shutil.rmtree(other)
    (world.workdir / "checkpoints" / "2" / "state" / "_METADATA").write_bytes(b"x")
    return world.train()


def class_that_the_model_lacks(world):
    world.write("validation.csv", [*TRAIN, ("so so", "so")])
    return world.train("--mode=eval")


def task_that_the_model_lacks(world):
    for name in ("train.csv", "validation.csv"):
        world.write(name, [("good", "1"), ("bad", "2"), ("so", "3")])
    return world.train("--mode=eval", "--config.task=regression")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (another_config, ("seed was 0, is 3", "train.batch_size was 4, is 5", "--workdir")),
        (another_text, ("data.sha256 was", "--workdir")),
        (damaged_run_config, ("run/config.json is not valid JSON", "--workdir")),
        (binary_run_config, ("run/config.json is not valid JSON", "--workdir")),
        (list_for_a_run_config, ("run/config.json", "--workdir")),
        (damaged_checkpoint, ("checkpoints/2", "remove that folder")),
        (
            class_that_the_model_lacks,
            ("validation.csv line 14", "'so'", "bad, good", "class=wrong"),
        ),
        (task_that_the_model_lacks, ("a model of classification", "config.task is regression")),
    ],
)
def test_going_on(resumable, capsys, spoil, words):
    status = run_command(main.main, spoil(resumable))
    check(status, capsys.readouterr().err, words)


# --- Prediction -----------------------------------------------------------------------------


def no_head(world, model):
    return world.predict(world.root / "bare")


def no_such_model(world, model):
    return world.predict(world.root / "absent")


def unknown_output(world, model):
    return world.predict(model, "in.txt", "out.xlsx")


def unknown_input(world, model):
    (world.root / "in.xlsx").write_bytes(b"PK")
    return world.predict(model, "in.xlsx")


def no_input(world, model):
    return world.predict(model, "in.text")


def output_is_a_folder(world, model):
    (world.root / "out.csv").mkdir()
    return world.predict(model)


def output_below_a_file(world, model):
    return world.predict(model, "in.txt", "in.txt/out.csv")


def no_such_column(world, model):
    (world.root / "in.csv").write_text("title,body\na,b\n")
    return world.predict(model, "in.csv")


def no_such_named_column(world, model):
    (world.root / "in.csv").write_text("title,body\na,b\n")
    return world.predict(model, "in.csv", "out.csv", "--text_columns=bdy")


def which_column(world, model):
    (world.root / "in.csv").write_text("title,body\na,b\n")
    return world.predict(world.model, "in.csv")


def empty_input(world, model):
    (world.root / "in.txt").write_text("")
    return world.predict(model)


def latin_input(world, model):
    (world.root / "in.txt").write_bytes(b"good\nsch\xf6n\n")
    return world.predict(model)


def no_such_encoding(world, model):
    return world.predict(model, "in.txt", "out.csv", "--encoding=latin-99")


def no_batch(world, model):
    return world.predict(model, "in.txt", "out.csv", "--batch_size=0")


def too_short(world, model):
    return world.predict(model, "in.txt", "out.csv", "--max_length=2")


def beyond_the_positions(world, model):
    return world.predict(model, "in.txt", "out.csv", "--max_length=42")


def damaged_card(world, model):
    (model / "jaxtune.json").write_text("{")
    return world.predict(model)


def pairs_for_a_model_of_one_type(world, model):
    (world.root / "in.csv").write_text("a,b\ngood,bad\n")
    return world.predict(world.root / "one_type", "in.csv", "out.csv", "--text_columns=a,b")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_head, ("bare has no usable head", "Fine-tune it first")),
        (no_such_model, ("absent does not exist",)),
        (unknown_output, ("--output=", "out.xlsx", ".jsonl or .csv")),
        (unknown_input, ("in.xlsx", "'.xlsx'", ".csv")),
        (no_input, ("--input=", "in.text", "Nearest: in.txt")),
        (output_is_a_folder, ("--output=", "out.csv", "expected a file")),
        (output_below_a_file, ("--output=", "expected a file")),
        (no_such_column, ("in.csv line 1", "'text'", "title")),
        (no_such_named_column, ("in.csv line 1", "'bdy'", "Nearest: body")),
        (which_column, ("title, body", "--text_columns=NAME")),
        (empty_input, ("in.txt is empty", "one text a line")),
        (latin_input, ("in.txt line 2", "0xf6", "latin-1")),
        (no_such_encoding, ("in.txt", "'latin-99'", "latin-1")),
        (no_batch, ("--batch_size=0", "at least 1")),
        (too_short, ("--max_length=2", "at least 3")),
        (beyond_the_positions, ("max_length is 42", "41 positions")),
        (damaged_card, ("jaxtune.json is not valid JSON",)),
        (pairs_for_a_model_of_one_type, ("token_type_ids up to 1", "type_vocab_size 1")),
    ],
)
def test_prediction(world, finished, golden, capsys, spoil, words):
    for name in ("odd_bare", "one_type"):
        shutil.copytree(golden / name, world.root / name.removeprefix("odd_"))
    model = world.root / "tuned"
    shutil.copytree(finished.workdir / "model", model)
    argv = spoil(world, model)
    status = run_command(predict.main, argv)
    check(status, capsys.readouterr().err, words)
    assert not (world.root / "out.csv").is_file()


# --- What looks wrong but is right ----------------------------------------------------------


def test_a_text_as_long_as_the_positions(world, finished):
    (world.root / "in.txt").write_text("good " * 60 + "\nbad\n")  # 41 positions, not 48
    argv = world.predict(finished.workdir / "model", "in.txt", "out.jsonl", "--max_length=41")
    assert run_command(predict.main, argv) == 0
    for line in (world.root / "out.jsonl").read_text().splitlines():
        assert sum(json.loads(line)["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize("layout", ["padded", "bucketed"])
def test_training_on_texts_as_long_as_the_positions(world, layout):
    world.write("validation.csv", [*HELD, ("good " * 60, "good")])
    found = load_config(str(world.config), {"data.max_length": "41", "data.layout": layout})
    assert prepare(found, Report()).data.eval_layout.lengths[-1] == 41
    world.write("train.csv", [*TRAIN, ("good " * 60, "good")])
    assert prepare(found, Report()).data.stream.layout.lengths[-1] == 41


def test_lines_end_where_an_editor_ends_them(world, finished):
    (world.root / "in.txt").write_bytes("\ufeffgood\x85food\r\nbad\u2028film\n\n".encode())
    argv = world.predict(finished.workdir / "model")
    assert run_command(predict.main, argv) == 0
    assert len((world.root / "out.csv").read_text().splitlines()) == 1 + 2


def test_home_is_expanded(world, finished, monkeypatch):
    monkeypatch.setenv("HOME", str(world.root))  # no shell expands it after `=`
    argv = [f"--model={finished.workdir / 'model'}", "--input=~/in.txt", "--output=~/out.csv"]
    assert run_command(predict.main, argv) == 0
    assert (world.root / "out.csv").is_file()
    monkeypatch.chdir(world.root)
    world.workdir.write_text("")
    argv = ["--config=~/config.json", "--workdir=~/run"]
    assert run_command(main.main, argv) == 2
    assert not (world.root / "~").exists()


# --- Through a real process -----------------------------------------------------------------


def run_module(module, argv):
    done = subprocess.run(
        [sys.executable, "-m", module, *argv],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def test_a_process_that_fails(world):
    done = run_module("jaxtune.main", world.train("--config.sead=1"))
    check(done.returncode, done.stderr, ("'sead'", "Nearest: seed"))
    assert done.stdout == ""


def test_a_process_that_meets_a_damaged_checkpoint(resumable):
    done = run_module("jaxtune.main", damaged_checkpoint(resumable))
    check(done.returncode, done.stderr, ("checkpoints/2", "remove that folder"))


def test_who_has_seen_enough_of_the_output_ends_it_without_a_trace():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "jaxtune", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
