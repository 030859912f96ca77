"""Packing: every example once, no row overfull, few shapes, little padding."""

import itertools
from collections import Counter

import numpy as np
import pytest

from jaxtune.data.batching import packing
from jaxtune.data.batching.batches import padding_waste
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.packing import Packing, RowShape, Use

# Quantiles of the lengths of AG News in tokens: a long tail up to where texts are cut.
QUANTILES = [9, 28, 34, 41, 49, 58, 71, 121, 128]
SHARES = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]


def texts(n, seed=0):
    draws = np.random.default_rng(seed).random(n)
    return np.interp(draws, SHARES, QUANTILES).astype(int)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (3, 4), (4, 4), (5, 4), (83, 8), (96, 32), (7, 1)])
def test_each_example_is_in_one_batch(n, size):
    lengths = texts(n)
    for epoch in range(3):
        found = packing.mixed_batches(lengths, size, 0, epoch)
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(n))
        assert len(found) == -(-n // size)
        assert sorted(map(len, found))[1:] == [size] * (len(found) - 1)


def test_batches_follow_from_seed_and_epoch_and_differ_by_both():
    lengths = texts(200)
    orders = {
        str([b.tolist() for b in packing.mixed_batches(lengths, 8, seed, epoch)])
        for seed in (0, 1)
        for epoch in (0, 1)
        for _ in range(2)
    }
    assert len(orders) == 4


def test_each_batch_has_the_same_mix_of_lengths():
    lengths = texts(3200)
    found = packing.mixed_batches(lengths, 32, 0, 0)
    sums = np.array([lengths[b].sum() for b in found])
    drawn = np.random.default_rng(0).permutation(lengths).reshape(-1, 32).sum(1)
    assert sums.std() < drawn.std() / 3
    for batch in found:
        ranks = np.sort(lengths[batch])
        assert abs(int(np.median(ranks)) - int(np.median(lengths))) <= 2


def test_examples_of_a_batch_are_not_always_the_same_neighbours():
    """Two examples meet in one batch about as often as chance has it."""
    lengths = texts(256)
    met = np.zeros((256, 256))
    for epoch in range(100):
        for batch in packing.mixed_batches(lengths, 8, 0, epoch):
            met[np.ix_(batch, batch)] += 1
    off = met[~np.eye(256, dtype=bool)]
    assert off.max() < 20  # 100 * 7 / 255 is 2.7


@pytest.mark.parametrize("slots", [None, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 11, 12, 32])
def test_pack_puts_each_example_into_one_row(rows, slots):
    lengths = texts(32).tolist()
    found = packing.pack(lengths, rows, slots)
    assert len(found) == rows
    flat = sorted(i for row in found for i in row)
    held = 32 if slots is None else min(32, rows * slots)
    assert len(flat) == len(set(flat)) == held
    if slots is not None:
        assert max(map(len, found)) <= slots


def all_exchanges(lengths, rows, slots):
    """As `pack`, which looks at no exchange that cannot be the best: this one looks at all."""
    placed = [[] for _ in range(rows)]
    sums = [0] * rows
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        free = [row for row in range(rows) if slots is None or len(placed[row]) < slots]
        if free:
            row = min(free, key=lambda row: (sums[row], row))
            placed[row].append(i)
            sums[row] += lengths[i]
    for _ in range(4 * rows):
        full, tried = sums.index(max(sums)), []
        for other in sorted(range(rows), key=lambda row: sums[row])[: packing._PARTNERS]:
            backs = [
                *placed[other],
                *([None] if slots is None or len(placed[other]) < slots else []),
            ]
            for mine in placed[full]:
                for back in backs:
                    change = lengths[mine] - (0 if back is None else lengths[back])
                    less = sums[full] - max(sums[full] - change, sums[other] + change)
                    tried.append((less, other, mine, back, change))
        less, other, mine, back, change = max(tried, key=lambda found: found[0])
        if less <= 0:
            break
        for row, gone, come, more in ((full, mine, back, -change), (other, back, mine, change)):
            placed[row] = [i for i in placed[row] if i != gone] + ([] if come is None else [come])
            sums[row] += more
    return placed


@pytest.mark.parametrize("slots", [None, 3])
@pytest.mark.parametrize("seed", range(5))
def test_pack_finds_the_best_exchange(seed, slots):
    rng = np.random.default_rng(seed)
    for count, longest in ((32, 64), (70, 500), (20, 3)):
        lengths = rng.integers(1, longest + 1, count).tolist()
        for rows in (2, count // 3, count // 2):
            assert packing.pack(lengths, rows, slots) == all_exchanges(lengths, rows, slots)


def test_pack_balances():
    lengths = texts(32, seed=3).tolist()
    for rows in (6, 8, 9):
        sums = [sum(lengths[i] for i in row) for row in packing.pack(lengths, rows)]
        assert max(sums) <= max(1.03 * sum(lengths) / rows, max(lengths))


@pytest.mark.parametrize(("multiple", "size"), [(1, 32), (2, 32), (4, 32), (1, 8), (1, 1), (3, 9)])
def test_whatever_is_placed_fits(multiple, size):
    lengths = texts(500)
    chosen = packing.choose_packing([lengths], size, 3, multiple)
    assert all(shape.rows % multiple == 0 for shape in chosen.shapes)
    assert len(chosen.shapes) <= 5
    for batch in packing.mixed_batches(lengths, size, 1, 1):
        own = lengths[batch].tolist()
        shape, rows = packing.place(own, chosen)
        assert shape in chosen.shapes
        assert len(rows) == shape.rows
        assert sorted(i for row in rows for i in row) == list(range(len(own)))
        assert all(sum(own[i] for i in row) <= shape.length for row in rows)
        assert max(map(len, rows)) <= chosen.slots


def test_what_fits_no_shape_has_rows_of_its_own():
    chosen = Packing((RowShape(2, 64), RowShape(4, 128)), 3)
    assert packing.place([40, 20, 60], chosen) == (RowShape(2, 64), ((2,), (0, 1)))
    assert packing.place([40, 40, 60], chosen) == (RowShape(4, 128), ((0,), (1,), (2,), ()))
    assert packing.place([], chosen) == (RowShape(2, 64), ((), ()))


@pytest.mark.parametrize("seed", range(3))
def test_less_than_five_per_cent_is_padding_in_a_few_shapes(seed):
    lengths = texts(9491, seed)
    layout = choose_layout("packed", lengths, 32)
    order = layout.order(lengths, seed, 1)
    placed = [layout.place(batch, lengths) for batch in order]
    assert padding_waste(placed, lengths, lambda index: len(index.rows)) < 0.05
    assert len({(len(index.rows), index.length) for index in placed}) <= 4


def placed_in(chosen, lengths, size, steps, seed=0):
    """How many of the batches of a run lie in each shape."""
    epochs = (packing.mixed_batches(lengths, size, seed, epoch) for epoch in itertools.count())
    batches = itertools.islice(itertools.chain.from_iterable(epochs), steps)
    return Counter(packing.place(lengths[batch].tolist(), chosen)[0] for batch in batches)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("longest", [30, 120])
def test_a_short_run_compiles_for_one_shape_and_a_long_one_for_more(seed, longest):
    lengths, program = np.minimum(texts(1000, seed), longest), 50_000.0
    known = Use(program, batches=70, seed=seed)
    short = packing.choose_packing([lengths], 32, 3, use=known)
    used = placed_in(short, lengths, 32, 70, seed)
    assert [*used] == [short.shapes[0]], used  # whatever the run's own batches are
    endless = packing.choose_packing([lengths], 32, 3)
    long = packing.choose_packing([lengths], 32, 3, use=known._replace(batches=10**6))
    assert set(long.shapes) == set(endless.shapes)
    assert sum(n * s.rows * s.length for s, n in used.items()) < 1.2 * lengths.sum() * 70 / 32


@pytest.mark.parametrize("program", [None, 0.0, 300.0, 3000.0])
@pytest.mark.parametrize("longest", [20, 30, 60, 120])
def test_each_shape_that_is_expected_is_used(longest, program):
    lengths = np.minimum(texts(2000, longest), longest)
    use = None if program is None else Use(program, batches=200)
    chosen = packing.choose_packing([lengths], 32, 3, use=use)
    used = placed_in(chosen, lengths, 32, 200)
    assert set(chosen.shapes[:-2]) <= set(used), (chosen, used)


def test_examples_of_one_length_have_rows_of_their_own_or_fill_rows():
    lengths = np.full(320, 128)
    layout = choose_layout("packed", lengths, 32)
    placed = [layout.place(batch, lengths) for batch in layout.order(lengths, 0, 0)]
    assert padding_waste(placed, lengths, lambda index: len(index.rows)) == 0.0


def test_padded_and_packed_batches_hold_the_same_examples():
    lengths = texts(300)
    orders = [
        choose_layout(kind, lengths, 16).order(lengths, 3, 2) for kind in ("packed", "padded")
    ]
    for one, other in zip(*orders, strict=True):
        np.testing.assert_array_equal(one, other)
