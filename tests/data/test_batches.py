from itertools import combinations

import numpy as np
import pytest

from jaxtune.data.batching.batches import (
    BatchIndex,
    choose_lengths,
    eval_order,
    padding_waste,
    train_order,
)
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokens import Tokens


def random_lengths(seed, n, longest=60):
    return np.random.default_rng(seed).integers(2, longest + 1, n)


def make_examples(lengths, labels=None, pad_token_id=0):
    """Example i holds the tokens 100 i, 100 i + 1, ... of which the second half has type 1."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    parts = [100 * i + np.arange(length) for i, length in enumerate(lengths)]
    types = [np.arange(length) >= length // 2 for length in lengths]
    flat = (np.concatenate(values).astype(np.int32) for values in (parts, types))
    return Examples(Tokens(*flat, offsets, pad_token_id), labels)


def cost(lengths, shapes):
    return sum(min(shape for shape in shapes if shape >= length) for length in lengths)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_shapes", [1, 2, 3, 5])
def test_choose_lengths_leaves_the_least_padding(seed, num_shapes):
    lengths = random_lengths(seed, n=3 + 4 * seed, longest=70)
    top = -(-int(lengths.max()) // 8) * 8
    below = range(8, top, 8)
    best = min(
        cost(lengths, (*some, top))
        for size in range(num_shapes)
        for some in combinations(below, size)
    )
    chosen = choose_lengths(lengths, num_shapes)
    assert cost(lengths, chosen) == best
    assert chosen[-1] == top
    assert len(chosen) <= num_shapes
    assert list(chosen) == sorted(set(chosen))
    assert all(type(length) is int and length % 8 == 0 for length in chosen)


@pytest.mark.parametrize(
    ("lengths", "num_shapes", "expected"),
    [([8], 4, (8,)), ([1], 1, (8,)), ([9, 9, 9], 3, (16,)), ([8, 16, 24], 9, (8, 16, 24)),
     ([8, 8, 8, 8, 64], 2, (8, 64)), ([8, 57, 64, 64], 2, (8, 64))],
)  # fmt: skip
def test_choose_lengths_on_plain_cases(lengths, num_shapes, expected):
    assert choose_lengths(np.array(lengths), num_shapes) == expected


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [([41, 8], 41, (8, 41)), ([41, 40], 41, (40, 41)), ([9], 41, (16,)), ([33], 41, (40,))],
)
def test_choose_lengths_stays_within_the_positions_of_the_model(lengths, limit, expected):
    assert choose_lengths(np.array(lengths), 2, limit) == expected


def as_lists(order):
    return [(index.indices.tolist(), index.length) for index in order]


@pytest.mark.parametrize("seed", range(200))
def test_train_order_holds_every_example_once_in_full_batches(seed):
    rng = np.random.default_rng(seed)
    n, batch_size = seed + 1, int(rng.integers(1, 40))
    lengths = random_lengths(seed, n)
    shapes = choose_lengths(lengths, int(rng.integers(1, 6)))
    order = train_order(lengths, shapes, batch_size, seed=seed, epoch=3)
    assert sorted(np.concatenate([index.indices for index in order])) == list(range(n))
    sizes = sorted(len(index.indices) for index in order)
    assert len(order) == -(-n // batch_size)
    assert sizes[1:] == [batch_size] * (len(order) - 1)
    for index in order:
        assert index.length in shapes
        # As short as its longest example allows.
        assert index.length == min(s for s in shapes if s >= lengths[index.indices].max())
    again = train_order(lengths, shapes, batch_size, seed=seed, epoch=3)
    assert as_lists(order) == as_lists(again)


def test_train_order_differs_by_epoch_and_seed():
    lengths = random_lengths(0, 64)
    shapes = choose_lengths(lengths, 3)
    orders = [
        str(as_lists(train_order(lengths, shapes, 8, seed, epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]
    ]
    assert len(set(orders)) == len(orders)


def test_train_order_shuffles_within_and_among_lengths():
    lengths = np.repeat([8, 16], 200)
    order = train_order(lengths, (8, 16), 10, seed=0, epoch=0)
    of_batches = [index.length for index in order]
    assert of_batches != sorted(of_batches)
    assert of_batches != sorted(of_batches, reverse=True)
    short = np.concatenate([index.indices for index in order if index.length == 8])
    assert not np.array_equal(np.sort(short[:10]), np.arange(10))


def test_train_order_gathers_like_lengths():
    lengths = random_lengths(0, 1000)
    shapes = choose_lengths(lengths, 4)
    order = train_order(lengths, shapes, 16, seed=0, epoch=0)
    buckets = [set(np.searchsorted(shapes, lengths[index.indices])) for index in order]
    assert sum(len(bucket) > 1 for bucket in buckets) <= len(shapes)


def test_fewer_examples_than_a_batch_are_one_batch():
    order = train_order(np.array([3, 30, 9]), (8, 16, 32), 64, seed=0, epoch=0)
    assert len(order) == 1
    assert order[0].length == 32
    assert sorted(order[0].indices) == [0, 1, 2]


def test_no_examples_are_no_batches():
    nothing = np.zeros(0, np.int64)
    assert choose_lengths(nothing, 3) == ()
    assert train_order(nothing, (), 4, seed=0, epoch=0) == []
    assert train_order(nothing, (8,), 4, seed=0, epoch=0) == []
    assert eval_order(nothing, (), 4) == []
    assert padding_waste([], nothing, lambda index: 4) == 0.0


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 50])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_eval_order_holds_every_example_once_shortest_first(n, batch_size):
    lengths = random_lengths(n, n)
    shapes = choose_lengths(lengths, 3)
    order = eval_order(lengths, shapes, batch_size)
    flat = np.concatenate([index.indices for index in order])
    assert sorted(flat) == list(range(n))
    assert (np.diff(lengths[flat]) >= 0).all()
    assert [len(index.indices) for index in order[:-1]] == [batch_size] * (len(order) - 1)
    for index in order:
        assert index.length == min(s for s in shapes if s >= lengths[index.indices].max())


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_collate_pads_rows_and_fills_the_batch(kind):
    lengths = [3, 8, 5]
    examples = make_examples(lengths, np.array([4, 5, 6], kind), pad_token_id=9)
    batch = examples.collate(BatchIndex(np.array([2, 0]), 8), batch_size=4)
    np.testing.assert_array_equal(
        batch["input_ids"],
        [[200, 201, 202, 203, 204, 9, 9, 9], [0, 1, 2, 9, 9, 9, 9, 9], [9] * 8, [9] * 8],
    )
    np.testing.assert_array_equal(
        batch["attention_mask"],
        [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0], [1, *[0] * 7], [1, *[0] * 7]],
    )
    np.testing.assert_array_equal(
        batch["token_type_ids"],
        [[0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0], [0] * 8, [0] * 8],
    )
    np.testing.assert_array_equal(batch["weight"], [1, 1, 0, 0])
    np.testing.assert_array_equal(batch["labels"], [6, 4, 0, 0])
    np.testing.assert_array_equal(batch["example_ids"], [2, 0, 0, 0])
    assert batch["labels"].dtype == kind
    assert batch["weight"].dtype == np.float32
    kinds = ("input_ids", "attention_mask", "token_type_ids", "example_ids")
    assert {batch[k].dtype for k in kinds} == {np.dtype(np.int32)}


def test_collate_without_labels_has_none():
    batch = make_examples([3]).collate(BatchIndex(np.array([0]), 8), 1)
    assert "labels" not in batch


def test_collate_refuses_an_example_longer_than_the_batch():
    with pytest.raises(ValueError, match="broadcast"):
        make_examples([9]).collate(BatchIndex(np.array([0]), 8), 1)


def test_padding_waste_counts_padding_and_filling():
    lengths = np.array([4, 8, 12])
    order = [BatchIndex(np.array([0, 1]), 8), BatchIndex(np.array([2]), 16)]
    assert padding_waste(order, lengths, lambda index: 2) == pytest.approx(1 - 24 / (16 + 32))
    assert padding_waste([BatchIndex(np.array([1, 1]), 8)], lengths, lambda index: 2) == 0.0
