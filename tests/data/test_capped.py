"""Batches of long examples have fewer rows, an epoch as many batches."""

import numpy as np
import pytest

from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.stream import Stream
from jaxtune.data.text import tokens
from jaxtune.data.text.examples import Examples


def lengths_of(seed, n=5000, share=0.01, long=2048):
    """Texts of 50 tokens or so, and some documents."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 80, n)
    return np.where(rng.random(n) < share, rng.integers(long // 2, long + 1, n), lengths)


@pytest.mark.parametrize("batch_size", [8, 32, 33])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_no_batch_has_more_tokens_than_the_limit(batch_size, multiple, seed):
    lengths = lengths_of(seed)
    layout = choose_layout("bucketed", lengths, batch_size, multiple=multiple)
    plain = choose_layout("bucketed", np.minimum(lengths, 80), batch_size, multiple=multiple)
    assert layout.num_batches(lengths) == plain.num_batches(lengths) == -(-5000 // batch_size)
    seen = []
    for epoch in range(2):
        order = layout.order(lengths, seed, epoch)
        assert len(order) == layout.num_batches(lengths)
        assert np.sort(np.concatenate(order)).tolist() == [*range(5000)]
        for indices in order:
            index = layout.place(indices, lengths)
            rows = layout.num_rows(index)
            assert len(indices) <= rows
            assert rows % multiple == 0
            assert rows * index.length <= batch_size * 512 + multiple * index.length
            assert lengths[indices].max() <= index.length
        seen.append([*map(tuple, order)])
    assert seen[0] != seen[1]
    assert seen[0] == [*map(tuple, layout.order(lengths, seed, 0))]
    shapes = {(shape.rows, shape.length) for shape in layout.shapes()}
    assert {
        (layout.num_rows(i), i.length) for i in (layout.place(b, lengths) for b in order)
    } <= shapes


def test_short_batches_have_hardly_more_rows():
    lengths = lengths_of(0)
    layout = choose_layout("bucketed", lengths, 32)
    assert layout.caps.rows[-1] == 8
    assert 32 <= layout.caps.rows[0] <= 34


@pytest.mark.parametrize("longest", [80, 512])
def test_without_long_examples_nothing_changes(longest):
    lengths = lengths_of(0, long=longest)
    layout = choose_layout("bucketed", lengths, 32)
    assert layout.caps is None
    assert choose_layout("packed", lengths_of(0), 32).caps is None
    assert choose_layout("padded", lengths_of(0), 32).caps is None
    # Documents alone are no longer than others.
    assert choose_layout("bucketed", np.full(100, 2048), 32).caps is None


def test_where_batches_are_too_few_nothing_changes():
    lengths = np.array([2048] * 8 + [30, 40])
    layout = choose_layout("bucketed", lengths, 8)
    assert len(layout.order(lengths, 0, 0)) == layout.num_batches(lengths) == 2


def test_evaluation_has_the_limit_too():
    lengths = lengths_of(0, 500, 0.1)
    layout = choose_layout("bucketed", [lengths], 32)
    order = layout.eval_order(lengths)
    assert np.sort(np.concatenate(order)).tolist() == [*range(500)]
    for indices in order:
        index = layout.place(indices, lengths)
        assert len(indices) <= layout.num_rows(index)
        assert layout.num_rows(index) * index.length <= 32 * 900


def test_a_stream_goes_on_from_any_step():
    lengths = lengths_of(1, 300, 0.05, 1024)
    ids = np.zeros(int(lengths.sum()), np.int32)
    made = tokens.Tokens(ids, tokens.no_types(len(ids)), tokens.offsets_of(lengths))
    examples = Examples(made, np.arange(300, dtype=np.int32))
    stream = Stream(examples, choose_layout("bucketed", lengths, 16), 3)
    assert stream.layout.caps is not None
    assert stream.steps_per_epoch == 19
    whole = [index for index, _ in zip(stream.indices(0), range(40), strict=False)]
    later = [index for index, _ in zip(stream.indices(25), range(15), strict=False)]
    for (one, epoch), (other, same) in zip(whole[25:], later, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert epoch == same
    batch = stream.collate(*whole[0])
    rows = stream.layout.num_rows(whole[0][0])
    assert batch["input_ids"].shape == (rows, whole[0][0].length)
    assert batch["weight"].sum() == len(whole[0][0].indices)
    assert stream.layout.num_rows(BatchIndex(whole[0][0].indices, 1)) == max(
        stream.layout.caps.rows
    )
