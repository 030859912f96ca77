"""Rows by class: shares, passes over the rows of a class, and batches that follow from the step."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.class_sampling import choose_sampling
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.stream import Stream
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, every
from jaxtune.run.prepare import prepare
from jaxtune.run.sampling_rows import sampling_rows
from jaxtune.run.train import train

COUNTS = (70, 24, 6)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), COUNTS)).astype(np.int32)
LENGTHS = np.random.default_rng(1).integers(3, 40, len(LABELS))


@pytest.mark.parametrize(
    ("power", "expected"),
    [
        (0.0, COUNTS),
        (1.0, (34, 33, 33)),
        # Of the roots 8.37, 4.90, 2.45, whose sum is 15.72.
        (0.5, (53, 31, 16)),
    ],
)
def test_how_often_each_class_comes_up(power, expected):
    sampling = choose_sampling(LABELS, power)
    assert sampling.numbers == expected
    for epoch in (0, 1, 7):
        rows = sampling.rows(3, epoch)
        assert tuple(np.bincount(LABELS[rows])) == expected


def test_a_class_without_a_row_has_no_part():
    sampling = choose_sampling(np.array([0, 2, 2]), 1.0)
    assert sampling.numbers[1] == 0
    assert len(sampling.rows(0, 0)) == 3


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_no_row_is_ahead_of_another_of_its_class_by_two(power):
    sampling = choose_sampling(LABELS, power)
    seen, orders = Counter(), set()
    for epoch in range(25):
        rows = sampling.rows(5, epoch)
        seen.update(rows.tolist())
        orders.add(str(sorted(rows[LABELS[rows] == 0].tolist())))
        for label in range(3):
            times = [seen[int(i)] for i in np.flatnonzero(label == LABELS)]
            assert max(times) - min(times) <= 1
    assert len(orders) > 20  # other rows of the frequent class in each epoch
    for seed, epoch in ((6, 0), (5, 1)):
        assert not np.array_equal(sampling.rows(seed, epoch), sampling.rows(5, 0))
    np.testing.assert_array_equal(sampling.rows(5, 9), sampling.rows(5, 9))


class Examples:
    """Labels and lengths alone."""

    lengths, mixes = LENGTHS, False


@pytest.mark.parametrize("kind", ["packed", "bucketed", "padded"])
def test_the_batches_of_a_step_follow_from_its_number(kind):
    sampling = choose_sampling(LABELS, 1.0)
    layout = choose_layout(kind, sampling.lengths(LENGTHS, 0), 8)._replace(caps=None)
    stream = Stream(Examples(), layout, 0, sampling)
    steps = stream.steps_per_epoch
    assert steps == 13
    whole = list(itertools.islice(stream.indices(), 3 * steps))
    for epoch in range(3):
        batches = [index.indices for index, _ in whole[epoch * steps : (epoch + 1) * steps]]
        found = np.sort(np.concatenate(batches))
        np.testing.assert_array_equal(found, np.sort(sampling.rows(0, epoch)))
    for index, _ in whole:
        for span in index.spans(LENGTHS):
            assert span.stop <= index.length
    for step in (1, steps, 2 * steps + 5):
        later = list(itertools.islice(stream.indices(step), 6))
        for (index, number), (other, expected) in zip(later, whole[step:], strict=False):
            assert number == expected
            assert str(index) == str(other)
    assert [number for _, number in whole] == list(range(3 * steps))  # copies draw other noise


def test_the_longest_example_has_room():
    sampling = choose_sampling(LABELS, 1.0)
    lengths = LENGTHS.copy()
    left_out = min({*range(len(LABELS))} - {*sampling.rows(0, 0).tolist()})
    lengths[left_out] = 90
    assert sampling.lengths(lengths, 0).max() == 90
    layout = choose_layout("packed", sampling.lengths(lengths, 0), 8)
    index = layout.place(np.array([left_out, left_out]), lengths)
    assert isinstance(index, BatchIndex)
    assert index.length >= 90


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (
            {"task": "regression"},
            "class_sampling is 1.0: expected 0, as regression has no one class",
        ),
        ({"task": "token_classification"}, "token_classification has no one class for each row"),
        ({"loss.class_weights": "balanced"}, "loss.class_weights is ('balanced',): expected no"),
        ({"data.class_sampling": "1.5"}, "data.class_sampling is 1.5: expected"),
    ],
)
def test_where_there_is_no_sampling(fields, word, tmp_path):
    (tmp_path / "c.json").write_text('{"model": {"path": "m"}, "data": {"path": "d"}}')
    with pytest.raises(UserError, match=re.escape(word)):
        load_config(str(tmp_path / "c.json"), {"data.class_sampling": "1"} | fields)


class StoppedError(Exception):
    """What ends the first start of a run."""


def stop(moment):
    if moment.step == 7:
        raise StoppedError


@pytest.mark.exhaustive
@pytest.mark.parametrize("layout", ["packed", "bucketed", "padded"])
def test_a_run_that_was_stopped_goes_on_with_the_same_rows_and_kept_states(
    layout, tiny_weights, tiny_settings, tmp_path
):
    """Of nine rows two are of the rare class, whose copies stand beside each other in batches."""
    rows = [(" ".join(["the cat is"] * (1 + i % 3)) + " so" * i, "no") for i in range(7)]
    rows += [("a good film", "yes"), ("a bad dog ran", "yes")]
    for split, part in (("train", rows), ("validation", rows[5:])):
        lines = [json.dumps({"text": text, "label": label}) for text, label in part]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    model = tiny_weights("classification", "bert", 2)
    more = {"data.path": tmp_path, "data.layout": layout, "data.class_sampling": 1.0}
    more |= {"train.num_steps": 9, "train.checkpoint_every_steps": 5, "train.eval_every_steps": 9}
    settings = tiny_settings("classification", "last_layers", model, **more)
    told = Report(quiet=True)
    run = prepare(settings, told)
    assert run.tuning.trunks[0].keeps
    assert run.data.stream.sampling.numbers == (5, 4)
    (row,) = sampling_rows(run)
    assert "power 1: yes 44.4% (of the rows 22.2%), no 55.6% (of the rows 77.8%)" in row[1]
    whole = train(settings, tmp_path / "whole", told)
    with pytest.raises(StoppedError):
        train(settings, tmp_path / "again", told, hooks=[Hook(stop, every(1))])
    again = train(settings, tmp_path / "again", told)
    assert again["resumed_from_step"] == 5
    assert again["scores"] == whole["scores"]
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again")]
    first, second = map(load_file, files)
    for name, leaf in first.items():
        np.testing.assert_array_equal(second[name], leaf, err_msg=name)
