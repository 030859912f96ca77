"""Functions of a person's own that settings name: they are called, or refused in words."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from jaxtune.core.errors import UserError
from jaxtune.reporting import write as report
from jaxtune.run.config import load_config, read_settings
from jaxtune.run.console import Report
from jaxtune.run.own_code import Use, checked, find
from jaxtune.run.own_updates import scaler_of, schedule_of
from jaxtune.run.prepare import prepare
from jaxtune.run.train import train
from jaxtune.settings import OptimizerSettings
from jaxtune.settings.dicts import from_dict, to_dict
from jaxtune.training.optimizers import make_optimizer

MINE = """
import jaxtune
import optax

seen = []

def twice(outputs, batch): return 2 * jaxtune.losses.cross_entropy(outputs, batch).value
def short(outputs): return outputs
def lost(outputs, batch): return batch["target"]
def rows(outputs, batch): return outputs.sum(-1)
def right(outputs, examples): return (outputs.argmax(-1) == examples.labels).mean()
def wrong(outputs, examples): return (outputs.argmax(-1) != examples.labels).mean()
wrong.higher_is_better = False
def look(moment): seen.append(moment.step)
fourth = jaxtune.Hook(lambda moment: seen.append(-moment.step), jaxtune.every(4))
def flat(learning_rate, num_steps, warmup_steps): return optax.constant_schedule(learning_rate)
def none(learning_rate, num_steps, warmup_steps): return lambda step: None
def cut(learning_rate): return optax.chain(optax.sgd(learning_rate), optax.clip(0.01))
NUMBER = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module in the working folder; its name."""
    name = "mine_" + re.sub(r"\W", "_", tmp_path.name)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / f"{name}.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(folder)
    return name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere_at_all:f", ["no module 'nowhere_at_all'", "nowhere_at_all.py in the folder"]),
        ("{}:twic", ["has no 'twic'", "Nearest: twice"]),
        ("{}:NUMBER", ["a int: expected a function of (outputs, batch)"]),
        ("{}:short", ["takes (outputs): expected", "def short(outputs, batch): return"]),
        ("broken:f", ["broken fails, broken.py line 2: ZeroDivisionError"]),
        ("lacking:f", ["lacking imports no_such_package, which is not there"]),
        ("optax:f", ["'optax' is an installed module in use", "another name of the file"]),
    ],
)
def test_what_is_said_of_a_name(mine, name, words, tmp_path):
    folder = tmp_path / "work"
    (folder / "broken.py").write_text("# one\n1 / 0\n")
    (folder / "lacking.py").write_text("import no_such_package\n")
    (folder / "optax.py").write_text("f = 1\n")
    use = Use("(outputs, batch)", "a loss", "def FUNCTION(outputs, batch): return 0.0")
    with pytest.raises(UserError) as caught:
        checked("loss.function", name.format(mine), use)
    assert str(caught.value).startswith("config.loss.function is ")
    for word in words:
        assert word in str(caught.value)


def test_a_name_may_have_dots():
    assert find("optimizer.name", "optax.contrib:muon") is optax.contrib.muon
    assert find("optimizer.name", "optax:contrib.muon") is optax.contrib.muon


def test_a_file_of_data_runs_no_code(tmp_path, mine):
    file = tmp_path / "config.json"
    required = {"model": {"path": "m"}, "data": {"path": "d"}}
    for values, field, name in (
        ({"loss": {"function": f"{mine}:twice"}}, "loss.function", f"{mine}:twice"),
        ({"optimizer": {"name": "optax:lion"}}, "optimizer.name", "optax:lion"),
        ({"optimizer": {"schedule": f"{mine}:flat"}}, "optimizer.schedule", f"{mine}:flat"),
        ({"train": {"scores": ["a:b", "c:d"]}}, "train.scores", "a:b,c:d"),
        ({"model": {"path": "m", "head": "a:b"}}, "model.head", "a:b"),
        ({"train": {"hooks": ["a:b"]}}, "train.hooks", "a:b"),
    ):
        file.write_text(json.dumps(required | values))
        with pytest.raises(UserError, match=f"add --config.{field}={name}"):
            load_config(str(file), {})
        load_config(str(file), {field: name})
        short = field.partition(".")[0]
        if field in ("loss.function", "optimizer.name"):
            load_config(str(file), {short: name})
        assert read_settings(file)  # which only looks


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"loss": "a:b", "loss.label_smoothing": "0.1"}, "config.loss.label_smoothing is 0.1"),
        ({"optimizer.arguments": "b1=0.5"}, "config.optimizer.arguments is ('b1=0.5',)"),
        ({"optimizer.schedule": "constant", "optimizer.final_fraction": "0.1"}, "final_fraction"),
        ({"train.scores": "accuracy"}, "expected MODULE:FUNCTION"),
        ({"loss": "cross_entropy"}, "expected MODULE:FUNCTION or None"),
        ({"optimizer": "lion"}, "expected one of adamw, sgd or MODULE:FUNCTION"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, fields, word):
    (tmp_path / "c.json").write_text('{"model": {"path": "m"}, "data": {"path": "d"}}')
    with pytest.raises(UserError, match=re.escape(word)):
        load_config(str(tmp_path / "c.json"), fields)


PARAMS = {"layer": {"kernel": jnp.asarray(np.linspace(-1, 1, 12), jnp.float32).reshape(4, 3)}}
CHOICES = {
    "optax:lion": (lambda rate: optax.lion(rate, 0.8, weight_decay=0.1), ("b1=0.8",)),
    "optax:rmsprop": (lambda rate: optax.rmsprop(rate), ()),
    "optax:adafactor": (
        lambda rate: optax.adafactor(rate, multiply_by_parameter_scale=False),
        ("multiply_by_parameter_scale=False",),
    ),
    "optax.contrib:muon": (lambda rate: optax.contrib.muon(rate, weight_decay=0.1), ()),
    "optax:scale_by_adam": (lambda rate: optax.adamw(rate, weight_decay=0.1), ()),
}


@pytest.mark.parametrize("name", CHOICES)
def test_an_optimizer_of_optax_takes_the_steps_of_optax(name):
    reference, arguments = CHOICES[name]
    schedule = optax.linear_schedule(0.1, 0.0, 5)
    decay = 0.0 if name in ("optax:rmsprop", "optax:adafactor") else 0.1
    scaler = scaler_of(OptimizerSettings(name=name, arguments=arguments))
    labels = jax.tree.map(lambda _: "trainable", PARAMS)
    ours = make_optimizer(scaler, schedule, labels, weight_decay=decay, clip_norm=None)
    found, expected = PARAMS, PARAMS
    state, other = ours.init(found), (theirs := reference(schedule)).init(expected)
    for i in range(5):
        grads = jax.tree.map(lambda p, i=i: jnp.sin(5 * p + i), PARAMS)
        updates, state = ours.update(grads, state, found)
        found = optax.apply_updates(found, updates)
        updates, other = theirs.update(grads, other, expected)
        expected = optax.apply_updates(expected, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("optax:lion", ("b9=1",), "unexpected keyword argument 'b9'. It takes learning_rate, b1"),
        ("optax:lion", ("weight_decay=0.1",), "expected it as config.optimizer.weight_decay"),
        ("optax:lion", ("b1",), "expected NAME=VALUE"),
        ("optax:lbfgs", (), "optax:lbfgs fails: TypeError"),
        ("optax.contrib:schedule_free_adamw", (), "other parameters than it trains"),
        ("{}:cut", (), "not in proportion to its rate"),
    ],
)
def test_an_optimizer_that_cannot_be_had(name, arguments, word, mine):
    with pytest.raises(UserError, match=re.escape(word)):
        scaler_of(OptimizerSettings(name=name.format(mine), arguments=arguments))


def test_a_schedule_of_ones_own(mine):
    settings = OptimizerSettings(learning_rate=0.5, schedule=f"{mine}:flat")
    assert float(schedule_of(settings, 10)(7)) == 0.5
    for function, word in (("none", "expected one number"), ("look", "takes (moment)")):
        with pytest.raises(UserError, match=re.escape(word)):
            schedule_of(settings.__class__(schedule=f"{mine}:{function}"), 10)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"loss.function": "{}:lost"}, "line 9: KeyError: 'target'. The batch has attention_mask"),
        ({"loss.function": "{}:rows"}, "gives float32["),
        ({"train.scores": ("{}:short",)}, "expected a function of (outputs, examples)"),
        ({"train.scores": ("{}:right", "{}:right")}, "'right' is a score already"),
        ({"train.hooks": ("{}:twice",)}, "expected a function of (moment)"),
    ],
)
def test_a_wrong_function_is_told_before_weights_are_read(
    mine, fields, word, tiny_weights, tiny_settings, monkeypatch
):
    model = tiny_weights("classification", "bert", 1)
    monkeypatch.setattr("jaxtune.run.prepare.load_weights", None)
    fields = {
        key: tuple(name.format(mine) for name in value)
        if isinstance(value, tuple)
        else value.format(mine)
        for key, value in fields.items()
    }
    settings = _with(tiny_settings("classification", "head", model), fields)
    with pytest.raises(UserError, match=re.escape(word)):
        prepare(settings, Report(quiet=True))


def _with(settings, fields):
    values = to_dict(settings)
    for name, value in fields.items():
        section, field = name.split(".")
        values[section][field] = value
    return from_dict(type(settings), values)


def test_a_run_with_a_loss_scores_and_hooks_of_ones_own(
    mine, tiny_weights, tiny_settings, tmp_path
):
    """Twice the loss at half the rate trains, by SGD, the same bits."""
    model = tiny_weights("classification", "bert", 1)
    base = {
        "optimizer.name": "sgd",
        "optimizer.clip_norm": None,
        "optimizer.weight_decay": 0.0,
        "train.num_steps": 5,
        "train.eval_every_steps": 5,
    }
    own = {
        "optimizer.learning_rate": 0.125,
        "loss.function": f"{mine}:twice",
        "train.scores": (f"{mine}:right", f"{mine}:wrong"),
        "train.best_metric": "wrong",
        "train.hooks": (f"{mine}:look", f"{mine}:fourth"),
    }
    found = {}
    for name, fields in {"plain": {"optimizer.learning_rate": 0.25}, "own": own}.items():
        settings = _with(tiny_settings("classification", "head", model), base | fields)
        found[name] = train(settings, tmp_path / name, Report(quiet=True))
    files = [tmp_path / name / "model" / "model.safetensors" for name in found]
    plain, twice = map(load_file, files)
    assert all(np.array_equal(plain[key], twice[key]) for key in plain)
    scores = found["own"]["scores"]["validation"]
    assert scores["right"] == pytest.approx(scores["accuracy"])
    assert scores["wrong"] == pytest.approx(1 - scores["accuracy"])
    report.write(tmp_path / "own", Report(quiet=True), "label")  # of which no code is imported
    assert find("train.hooks", f"{mine}:seen") == [1, 2, 3, 4, -4, 5, -5]
