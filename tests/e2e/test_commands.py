"""`jaxtune COMMAND` and `python -m jaxtune.main`: one set of flags, help, the nearest flag."""

import pytest

from jaxtune import __main__ as console
from jaxtune import __version__, main, predict
from jaxtune.run.arguments import parse, predict_flags, run_flags
from jaxtune.run.cli import run_command
from jaxtune.run.config_reference import describe


def words(text):
    return " ".join(text.split())


@pytest.fixture
def told(capsys):
    """A function: command, words -> what it prints, after it has ended well."""

    def run(command, *argv):
        assert run_command(command, list(argv)) == 0
        found = capsys.readouterr()
        assert found.err == ""
        return found.out

    return run


@pytest.mark.parametrize(("command", "first"), [(console.run, ["train"]), (main.main, [])])
def test_help_lists_every_flag_and_every_setting(told, command, first):
    text = words(told(command, *first, "--help"))
    for flag in ("--config", "--workdir", "--distributed", "--process_id", "--help.SECTION"):
        assert f" {flag}" in text
    assert ("--mode" in text) == (command is main.main)
    settings = describe()
    assert len(settings) > 80
    for setting in settings:
        entry = f"--config.{setting.name}={setting.default} {setting.kind}: {setting.meaning}"
        assert words(entry) in text


@pytest.mark.parametrize(
    ("section", "inside", "outside"),
    [
        ("tuning", {"tuning.name", "tuning.rank"}, {"train.batch_size", "data.path"}),
        ("data", {"data.path", "data.augmentation.crop"}, {"model.path"}),
        ("data.augmentation", {"data.augmentation.crop"}, {"data.path"}),
        ("seed", {"seed"}, {"data.split_seed", "task"}),
    ],
)
def test_help_of_a_section(told, section, inside, outside):
    texts = {
        told(console.run, "train", f"--help.{section}"),
        told(console.run, "evaluate", "--config=agnews", f"--help.{section}"),
        told(console.run, f"--help.{section}"),
        told(main.main, f"--help.{section}"),
    }
    (text,) = texts
    assert all(f"--config.{name}=" in text for name in inside)
    assert not any(f"--config.{name}=" in text for name in outside)


def test_help_of_the_rest(told):
    text = told(console.run, "--help")
    assert text == told(console.run, "-h")
    for name in ("train", "predict", "evaluate", "lr-find", "generate"):
        assert f"jaxtune {name} " in text
    _, settings, listed = told(console.run, "train", "--help").partition("settings, with")
    assert text.endswith(settings + listed)
    text = told(console.run, "predict", "--help")
    assert "--model" in text
    assert "--config" not in text
    assert text == told(predict.main, "--help").replace(
        "python -m jaxtune.predict", "jaxtune predict"
    )


def test_the_lines_fit_the_terminal(told, monkeypatch):
    for width in (60, 90, 400):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = told(console.run, "--help.optimizer").splitlines()
        assert 0.8 * min(width, 100) < max(map(len, lines)) <= min(width, 100)


@pytest.mark.parametrize("command", [console.run, main.main, predict.main])
def test_the_version(told, command):
    assert told(command, "--version") == f"jaxtune {__version__}\n"


@pytest.mark.parametrize(
    ("name", "mode"),
    [("train", "train"), ("evaluate", "eval"), ("lr-find", "lr_find"), ("plan", "plan")],
)
def test_a_command_is_a_mode_of_the_module(monkeypatch, name, mode):
    found = []
    monkeypatch.setattr(main, "main", lambda *arguments: found.append(arguments))
    console.run([name, "--config=c"])
    assert found == [(["--config=c"], f"jaxtune {name}", mode)]
    argv = ["--config=c", "--workdir=w", "--config.seed", "3", "--config.task=regression"]
    short, overrides = parse(run_flags(f"jaxtune {name}", mode), argv)
    long, same = parse(run_flags(), [*argv, f"--mode={mode}"])
    assert overrides == same == {"seed": "3", "task": "regression"}
    assert vars(long) | vars(short) == vars(long)


def test_predict_has_the_flags_of_its_module(monkeypatch):
    found = []
    monkeypatch.setattr(predict, "main", lambda *arguments: found.append(arguments))
    console.run(["predict", "--model=m"])
    assert found == [(["--model=m"], "jaxtune predict")]
    arguments, _ = parse(predict_flags(), ["--model=m", "--input=i", "--output", "o"])
    assert vars(arguments) == {
        **{"model": "m", "input": "i", "output": "o", "text_columns": "", "encoding": "utf-8"},
        **{"batch_size": 64, "top_k": None, "max_length": None, "compute_dtype": "float32"},
        "head": None,
        **{"columns": None, "help": False, "version": False},
    }


RUN = ["--config=c", "--workdir=w"]


@pytest.mark.parametrize(
    ("command", "argv", "parts"),
    [
        (console.run, [], ("a command is missing", "train, predict, evaluate, lr-find")),
        (console.run, ["trian"], ("'trian'", "Nearest: train")),
        (console.run, ["eval", *RUN], ("'eval'", "Nearest: evaluate")),
        (console.run, ["lr_find", *RUN], ("'lr_find'", "Nearest: lr-find")),
        (console.run, ["--config=agnews"], ("'--config=agnews'", "train, predict")),
        (console.run, ["train", *RUN, "--seed=1"], ("--seed=1.", "Nearest: --config.seed=1.")),
        (console.run, ["train", *RUN, "--lr=1"], ("Nearest: --config.optimizer.learning_rate=1.",)),
        (console.run, ["train", *RUN, "--Seed=1"], ("Nearest: --config.seed=1.",)),
        (console.run, ["train", "--confg=c"], ("--confg=c.", "Nearest: --config=c.")),
        (
            console.run,
            ["train", *RUN, "--learning-rate", "1"],
            ("no --learning-rate.", "Nearest: --config.optimizer.learning_rate."),
        ),
        (
            console.run,
            ["train", *RUN, "--path=x"],
            ("Nearest: --config.model.path=x, --config.data.path=x.",),
        ),
        (
            console.run,
            ["train", *RUN, "--tuning.nam=x"],
            ("Nearest: --config.tuning.name=x.",),
        ),
        (console.run, ["train", "agnews"], ("no agnews.", "Nearest: --config=agnews.")),
        (console.run, ["train", *RUN, "--mode=eval"], ("jaxtune train takes no --mode=eval",)),
        (console.run, ["evaluate", *RUN, "--distributed"], ("evaluate takes no --distributed",)),
        (console.run, ["train", *RUN, "--xyzzy"], ("--xyzzy. jaxtune train --help lists",)),
        (console.run, ["train", "--help.tunig"], ("--help.tunig", "Nearest: tuning")),
        (console.run, ["predict", "--modle=m"], ("--modle=m", "Nearest: --model=m.")),
        (console.run, ["predict", "--config.seed=1"], ("predict takes no --config.seed=1",)),
        (console.run, ["predict"], ("predict needs --model and --input and --output.",)),
        (main.main, [*RUN, "--epochs=3"], ("no --epochs=3", "--config.train.num_epochs=3.")),
        (main.main, ["--workdir=w"], ("needs --config.",)),
        (main.main, ["--config=c"], ("needs --workdir.",)),
        (main.main, [*RUN, "--mode=test"], ("--mode", "'test'", "lr_find")),
        (main.main, ["--config=c", "--workdir"], ("--workdir", "one argument")),
        (main.main, [*RUN, "--process_id=x"], ("--process_id", "'x'")),
        (main.main, [*RUN, "--config.seed"], ("--config.seed has no value",)),
        (main.main, ["--config=agnew", "--workdir=w"], ("--config=agnew", "Nearest: agnews")),
        (predict.main, ["--model=m", "--input=i"], ("jaxtune.predict needs --output.",)),
        (predict.main, ["--model=m", "--batch_size=x"], ("--batch_size", "'x'")),
    ],
)
def test_what_is_typed_wrong(capsys, command, argv, parts):
    assert run_command(command, argv) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    for part in parts:
        assert part in found.err
