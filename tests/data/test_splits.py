"""Held-out rows: deterministic, by class, and never a duplicate of a training row."""

import os
import subprocess
import sys

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.splits import overlap, split_off, subsample


def rows(n, distinct, classes, seed=0):
    """n keys, many of them duplicates if distinct < n, and a class for each row."""
    draw = np.random.default_rng(seed)
    keys = [f"text {i}" for i in draw.integers(0, distinct, n)]
    return keys, (classes * draw.random(n) ** 2).astype(np.int64)


@pytest.mark.parametrize("size", [10, 99, 0.1, 0.5, 990])
@pytest.mark.parametrize("with_strata", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_duplicates_the_split_is_exact(size, with_strata, seed):
    n = 1000
    strata = rows(n, n, 7)[1]
    kept, held = split_off(range(n), strata if with_strata else None, size, seed)
    wanted = round(size * n) if isinstance(size, float) else size
    assert kept.dtype == held.dtype == np.int64
    assert len(held) == wanted
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(n))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    if with_strata:
        exact = np.bincount(strata) * wanted / n
        assert (np.abs(np.bincount(strata[held], minlength=7) - exact) <= 1).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("distinct", [20, 200, 2000])
def test_duplicates_stay_on_one_side(distinct, seed):
    keys, _ = rows(2000, distinct, 3, seed)
    strata = np.array([int(key.split()[1]) % 3 for key in keys])
    kept, held = split_off(keys, strata, 300, seed)
    assert overlap([keys[i] for i in kept], [keys[i] for i in held]) == 0
    assert len(kept) + len(held) == 2000
    largest = np.unique(keys, return_counts=True)[1].max()
    assert abs(len(held) - 300) <= largest
    exact = np.bincount(strata) * 300 / 2000
    assert (np.abs(np.bincount(strata[held], minlength=3) - exact) <= largest).all()


def test_rows_without_duplicates_fill_up_to_the_exact_size():
    keys = ["same"] * 300 + list(range(700))
    for seed in range(10):
        assert len(split_off(keys, None, 101, seed)[1]) == 101


def test_duplicates_with_different_labels_stay_together():
    keys = [i // 2 for i in range(400)]
    strata = np.arange(400) % 2
    kept, held = split_off(keys, strata, 40, 0)
    assert len(held) == 40
    assert overlap([keys[i] for i in kept], [keys[i] for i in held]) == 0


def test_a_large_group_of_mixed_labels_does_not_shift_the_shares():
    keys = ["same"] * 300 + list(range(1700))
    strata = np.array([0] * 100 + [1] * 200 + [0] * 700 + [1] * 1000)
    for seed in range(5):
        held = split_off(keys, strata, 200, seed)[1]
        assert np.bincount(strata[held]).tolist() == [80, 120]


def test_a_group_counts_for_the_class_of_most_of_its_rows():
    keys = ["same"] * 3 + list(range(97))
    strata = np.array([0, 1, 1] + [0] * 97)
    for seed in range(20):  # It is the only group of class 1, so it stays in training.
        assert split_off(keys, strata, 50, seed)[0][:3].tolist() == [0, 1, 2]


def test_rare_classes_stay_in_training_and_others_make_up_for_them():
    strata = np.array([0] * 500 + [1] * 480 + list(range(2, 22)))
    for seed in range(5):
        kept, held = split_off(range(1000), strata, 100, seed)
        assert len(held) == 100
        assert set(strata[kept]) == set(range(22))
        assert abs(np.bincount(strata[held])[0] - 100 * 500 / 980) <= 1


def test_same_seed_same_split_and_other_seed_another():
    keys, strata = rows(500, 400, 3)
    first, again, other = (split_off(keys, strata, 50, seed)[1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    assert subsample(500, strata, 50, 3).tolist() == subsample(500, strata, 50, 3).tolist()
    assert subsample(500, strata, 50, 3).tolist() != subsample(500, strata, 50, 4).tolist()


def test_the_two_draws_of_a_seed_are_independent():
    assert split_off(range(500), None, 50, 3)[1].tolist() != subsample(500, None, 50, 3).tolist()


def test_golden_split():
    """The rows held out must not change from one version to the next."""
    strata = np.array([0, 1, 2] * 4)
    assert split_off([f"t{i}" for i in range(12)], strata, 4, 0)[1].tolist() == [1, 5, 6, 10]
    assert subsample(12, strata, 4, 0).tolist() == [6, 7, 8, 10]


def test_hash_seed_plays_no_part():
    code = """
import numpy as np
from jaxtune.data.sources.splits import split_off
keys = [(f"text {i % 90}", "b") for i in range(200)]
print(split_off(keys, np.arange(200) % 2, 20, 0)[1].tolist())"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_every_row_can_be_held_out():
    counts = np.zeros(40)
    for seed in range(200):
        counts[split_off(range(40), None, 10, seed)[1]] += 1
    assert counts.min() > 20
    assert counts.max() < 80


@pytest.mark.parametrize(
    ("keys", "strata", "size", "expected"),
    [
        (range(10), None, 10, "Cannot hold out 10 of 10 rows: expected .* from 1 to 9"),
        (range(10), None, 0, "Cannot hold out 0 of 10 rows: expected"),
        (range(10), None, -1, "Cannot hold out -1 of 10 rows: expected"),
        (range(10), None, 1.0, "Cannot hold out 1.0 of 10 rows: .* fraction between"),
        (range(10), None, 0.01, "Cannot hold out 0 of 10 rows: .* at least one row"),
        (range(10), np.arange(10) % 5, 4, "Cannot hold out 4 of 10 .* 5 classes.* either side"),
        (range(10), np.arange(10) % 5, 6, "Cannot hold out 6 of 10 .* 5 classes.* either side"),
        (range(10), np.arange(10), 5, "Cannot hold out 5 of 10 .* 10 classes"),
        (["a"] * 10, None, 5, "Cannot hold out 5 of 10 .* 1 different texts .* 10 times"),
        (range(4), np.array([0, 0, 0, 1]), 3, "Cannot hold out 3 of 4 .* either side"),
    ],
)
def test_impossible_split(keys, strata, size, expected):
    with pytest.raises(UserError, match=expected):
        split_off(keys, strata, size, 0)


@pytest.mark.parametrize("size", [1, 30, 99])
def test_subsample_is_by_class(size):
    strata = np.array([0] * 60 + [1] * 30 + [2] * 10)
    chosen = subsample(100, strata, size, 0)
    assert len(set(chosen.tolist())) == size
    assert (np.diff(chosen) > 0).all()
    exact = np.array([60, 30, 10]) * size / 100
    assert (np.abs(np.bincount(strata[chosen], minlength=3) - exact) <= 1).all()
    assert len(subsample(100, None, size, 0)) == size


@pytest.mark.parametrize("size", [None, 100, 1000])
def test_subsample_of_everything(size):
    chosen = subsample(100, None, size, 0)
    assert chosen.dtype == np.int64
    np.testing.assert_array_equal(chosen, np.arange(100))


@pytest.mark.parametrize("size", [0, -3])
def test_subsample_of_nothing(size):
    with pytest.raises(UserError, match=f"Cannot draw {size} of 100 rows: expected .* at least 1"):
        subsample(100, None, size, 0)


def test_overlap_counts_rows():
    assert overlap(["a", "b"], ["b", "b", "c"]) == 2
    assert overlap([], ["a"]) == 0
