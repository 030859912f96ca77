"""Groups of texts in batches: whole, in any layout, and a function of seed, epoch and position."""

import itertools

import numpy as np
import pytest

from jaxtune.data.batching.groups import groups_of
from jaxtune.data.batching.layout import choose_layout
from jaxtune.data.batching.packing import Use
from jaxtune.data.batching.stream import Stream
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.grouped import GroupedExamples
from jaxtune.data.text.tokens import join

KINDS = ("packed", "padded", "bucketed")


def make_examples(count, seed=0, most=4, fixed=None):
    rng = np.random.default_rng(seed)
    sizes = np.full(count, fixed) if fixed else rng.integers(2, most + 1, count)
    groups = groups_of(sizes)
    total = int(sizes.sum())
    ids = [rng.integers(5, 90, rng.integers(3, 30)).tolist() for _ in range(total)]
    return GroupedExamples(Examples(join(ids, None, 0), np.arange(total, dtype="f")), groups)


def make_stream(kind, examples, batch_size=8, seed=3, multiple=1):
    use = Use(0.0, batches=50, seed=seed, groups=examples.groups)
    layout = choose_layout(kind, examples.lengths, batch_size, None, multiple, use=use)
    return Stream(examples, layout, seed, groups=examples.groups)


def test_groups_say_which_texts_are_theirs():
    groups = groups_of(np.array([2, 3, 2]))
    assert groups.largest == 3
    assert groups.texts(np.array([2, 0, 1])).tolist() == [5, 6, 0, 1, 2, 3, 4]
    assert groups.of(np.array([[0, 1], [4, 5]])).tolist() == [[0, 0], [1, 2]]
    assert groups.places(np.arange(7)).tolist() == [0, 1, 0, 1, 2, 0, 1]
    lengths = np.array([4, 1, 2, 2, 9, 1, 1])
    assert groups.lengths(lengths, "total").tolist() == [5, 13, 2]
    assert groups.lengths(lengths, "longest").tolist() == [4, 9, 1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fixed", [None, 2])
def test_a_batch_has_all_texts_of_a_group_or_none(kind, fixed):
    examples = make_examples(43, fixed=fixed)
    stream = make_stream(kind, examples, multiple=3)
    assert stream.steps_per_epoch == 6
    epochs = []
    for index, epoch in itertools.islice(stream.indices(), 12):
        batch = stream.collate(index, epoch)
        assert len(batch["input_ids"]) % 3 == 0
        real = batch["weight"] > 0
        found = list(
            zip(
                batch["group_ids"][real], batch["members"][real], batch["labels"][real], strict=True
            )
        )
        assert sorted(found) == [
            (g, m, examples.groups.offsets[g] + m)
            for g in sorted({g for g, *_ in found})
            for m in range(examples.groups.sizes[g])
        ]
        assert len({g for g, *_ in found}) in (8, 3)
        for row, slot in zip(*np.nonzero(np.atleast_2d(real.T).T), strict=True):
            check_text(examples, batch, row, slot)
        epochs.append((epoch, sorted({g for g, *_ in found})))
    for number in (0, 1):
        assert sorted(g for epoch, own in epochs if epoch == number for g in own) == [*range(43)]
    assert epochs[:6] != epochs[6:]


def check_text(examples, batch, row, slot):
    """The tokens of one text of a batch are its own."""
    if "segment_ids" in batch:
        own = batch["input_ids"][row][batch["segment_ids"][row] == slot + 1]
        text = int(batch["labels"][row, slot])
    else:
        own = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        text = int(batch["labels"][row])
    tokens = examples.tokens
    wanted = tokens.input_ids[tokens.offsets[text] : tokens.offsets[text + 1]]
    np.testing.assert_array_equal(own, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_is_taken_up_goes_on_as_it_was(kind):
    stream = make_stream(kind, make_examples(30))
    whole = [*itertools.islice(stream.indices(), 9)]
    for step in (1, 5, 8):
        index, epoch = next(stream.indices(step))
        np.testing.assert_array_equal(index.indices, whole[step][0].indices)
        assert (index.rows, index.length, epoch) == (
            whole[step][0].rows,
            whole[step][0].length,
            whole[step][1],
        )


def test_packed_and_padded_batches_have_the_same_groups():
    examples = make_examples(50)
    packed, padded = (make_stream(kind, examples) for kind in ("packed", "padded"))
    for (one, _), (other, _) in itertools.islice(
        zip(packed.indices(), padded.indices(), strict=False), 10
    ):
        np.testing.assert_array_equal(one.indices, other.indices)
    rows = [packed.layout.num_rows(index) for index, _ in itertools.islice(packed.indices(), 5)]
    assert max(rows) < padded.layout.num_rows(next(padded.indices())[0]) == 32


def test_a_process_makes_its_rows_of_a_batch():
    examples = make_examples(20)
    for kind in KINDS:
        stream = make_stream(kind, examples, multiple=2)
        index, epoch = next(stream.indices())
        whole, count = stream.collate(index, epoch), stream.layout.num_rows(index)
        for rows in (slice(0, count // 2), slice(count // 2, count)):
            part = stream.collate(index, epoch, rows)
            real = whole["weight"][rows] > 0
            for name, values in part.items():
                if name in ("group_ids", "members", "labels"):
                    np.testing.assert_array_equal(values[real], whole[name][rows][real])
