"""A batch that goes through the model in parts trains as the whole one, for whatever is weighed."""

import json

import jax
import numpy as np
import pytest
from cover import mark_rest

from jaxtune.core.errors import UserError
from jaxtune.models.registry import FAMILIES
from jaxtune.run import stages
from jaxtune.run.config import default_config, load_config
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.summary import start_rows
from jaxtune.settings import Settings, TrainSettings
from jaxtune.tasks.registry import TASKS

CASES = [
    *((task, "bert") for task in TASKS if task != "causal_lm" and TASKS[task].head != "image"),
    *(("classification", name) for name in FAMILIES if name != "bert"),
    ("causal_lm", "gpt2"),
]
CASES = [case for case in CASES if TASKS[case[0]].head in FAMILIES[case[1]].heads]
DEFAULT = [("token_classification", "bert")]


def settings_of(task, num_microbatches, model, data, tmp_path):
    config = default_config()
    config.task = task
    config.model.path, config.model.from_scratch = str(model), True
    config.data.path, config.data.max_length = str(data.folder), 16
    for name, value in data.fields.items():
        config.data[name] = value
    config.train.batch_size = 8
    config.train.num_microbatches = num_microbatches
    optimizer = {"name": "sgd", "learning_rate": 0.5, "schedule": "constant", "clip_norm": None}
    for name, value in (optimizer | {"warmup_fraction": 0.0, "momentum": 0.0}).items():
        config.optimizer[name] = value
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    return load_config(str(file), {})


def batches_of(run):
    """The training batches, for the whole model."""
    stream = run.data.stream
    return ((index, stream.collate(index, epoch)) for index, epoch in stream.indices())


@pytest.mark.parametrize(("task", "family"), mark_rest(CASES, DEFAULT))
def test_parts_are_the_whole(task, family, noisy_families, tiny_tasks, tmp_path):
    """Dropout too, which belongs to the tokens of the examples."""
    model, found = noisy_families[family], []
    for count in (1, 4):
        settings = settings_of(task, count, model, tiny_tasks[task], tmp_path)
        run = prepare(settings, Report())
        lines = [value for _, value in start_rows(run, tmp_path)]
        assert ("in 4 parts of 2, whose gradients are added" in lines) == (count == 4)
        batches = batches_of(run)
        index, batch = next(batches)
        while len(index.indices) == 8:  # the ragged one, whose last parts have no weight
            index, batch = next(batches)
        stage = stages.begin(run, 0, run.params)
        state, info = stage.step(stage.state, stage.frozen, batch)
        moved = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, run.params)
        found.append((info, np.concatenate([x.ravel() for x in jax.tree.leaves(moved)])))
    (whole, expected), (parts, moved) = found
    np.testing.assert_allclose(parts.loss.value, whole.loss.value, rtol=1e-6)
    np.testing.assert_allclose(parts.loss.weight, whole.loss.weight)
    np.testing.assert_allclose(parts.grad_norm, whole.grad_norm, rtol=1e-6)
    assert np.linalg.norm(moved - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "at least 1"),
        (-1, "at least 1"),
        (3, r"a number that divides train\.batch_size 32"),
        (64, r"a number that divides train\.batch_size 32"),
    ],
)
def test_a_number_that_does_not_divide_the_batch_is_refused(count, expected, tmp_path):
    file = tmp_path / "config.json"
    fields = {"model": {"path": "m"}, "data": {"path": "d"}, "train": {"num_microbatches": count}}
    file.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=rf"num_microbatches is {count}: expected {expected}"):
        load_config(str(file), {})
    assert Settings().train == TrainSettings(num_microbatches=1)
