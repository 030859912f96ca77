"""Which examples go into the next batch, and that its shape is one of few."""

import random

import pytest

from jaxtune.serving.shapes import fill, grid_of_images, grid_of_texts


@pytest.mark.parametrize("longest", [12, 48, 128, 130, 512, 8192])
def test_every_batch_has_a_shape_that_is_known(longest):
    grid, rng = grid_of_texts(longest, 1024), random.Random(0)
    assert len(grid.shapes) == len({*grid.shapes}) <= 16
    for _ in range(200):
        lengths = [rng.randint(1, rng.choice((9, 60, longest))) for _ in range(rng.randint(1, 80))]
        lengths = [min(length, longest) for length in lengths]
        shape, rows = fill(lengths, grid)
        assert shape in grid.shapes
        assert len(rows) == shape.rows
        taken = [i for row in rows for i in row]
        assert len(taken) == len({*taken})
        assert 0 in taken  # so that nothing waits for ever
        for row in rows:
            assert sum(lengths[i] for i in row) <= shape.length
            assert len(row) <= grid.slots(shape.length)
        longest_row, crowd = max(sum(lengths[i] for i in row) for row in rows), max(map(len, rows))
        fitting = [
            other
            for other in grid.shapes
            if other.length >= longest_row
            and grid.slots(other.length) >= crowd
            and other.rows >= sum(map(bool, rows))
        ]
        assert shape.rows * shape.length == min(s.rows * s.length for s in fitting)


def test_a_full_batch_is_nearly_full():
    grid, rng = grid_of_texts(128, 1024), random.Random(0)
    lengths = [rng.randint(30, 90) for _ in range(200)]
    shape, rows = fill(lengths, grid)
    assert tuple(shape) == (8, 128)
    assert sum(lengths[i] for row in rows for i in row) > 0.97 * 1024
    assert max(i for row in rows for i in row) < 60  # who came late does not come first
    assert {row[0] for row in rows} >= {0}


def test_one_short_text_takes_a_short_row():
    grid = grid_of_texts(512, 1024)
    assert [tuple(fill([n], grid).shape) for n in (5, 33, 65, 129, 512)] == [
        *((1, 32), (1, 64), (1, 128)),
        *((1, 512), (1, 512)),
    ]
    assert tuple(fill([60, 60, 60], grid).shape) == (2, 128)
    # A long text waits until it is the first; short ones fill up its row.
    assert fill([60, 400, 60], grid).rows == ((0, 2),)
    assert fill([400, 60, 50], grid) == ((1, 512), ((0, 1, 2),))


def test_images_have_a_row_each():
    grid = grid_of_images(8)
    assert [fill([1] * n, grid).shape.rows for n in (1, 2, 3, 8, 20)] == [1, 2, 4, 8, 8]
    assert fill([1] * 3, grid).rows == ((0,), (1,), (2,), ())
