"""Pairs by class: balance, count, and what no pair is."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxtune.data.text.class_pairs import alone, as_groups, draw_pairs
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokens import join

SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@given(SIZES, st.integers(2, 60), st.integers(0, 99))
def test_pairs_are_of_one_class_and_of_two_in_equal_numbers(sizes, most, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels, sizes = labels.tolist(), Counter(labels.tolist())
    both = [*itertools.combinations(range(len(labels)), 2)]
    same = {pair for pair in both if labels[pair[0]] == labels[pair[1]]}
    same |= {(i, i) for i, label in enumerate(labels) if sizes[label] == 1}
    other = {pair for pair in both if labels[pair[0]] != labels[pair[1]]}
    pairs = draw_pairs(np.array(labels), most, seed)
    assert pairs.possible == (len(same), len(other))
    count = min(max(pairs.possible), most // 2)
    for flag, known in ((True, same), (False, other)):
        found = Counter(tuple(sorted(pair)) for pair in pairs.texts[pairs.same == flag].tolist())
        assert found.total() == count
        assert found.keys() <= known
        times = [found[pair] for pair in known]
        assert max(times) - min(times) <= 1  # each as often as any other, but for one


def test_the_seed_alone_decides_what_is_drawn():
    labels = np.arange(40) % 4
    first, again, other = (draw_pairs(labels, 100, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.texts, again.texts)
    assert not np.array_equal(first.texts, other.texts)


def test_of_very_many_texts_no_pairs_are_listed():
    pairs = draw_pairs(np.arange(200_000) % 3, 64, 0)
    assert pairs.texts.shape == (64, 2)
    labels = pairs.texts % 3
    np.testing.assert_array_equal(labels[:, 0] == labels[:, 1], pairs.same)
    assert sum(pairs.possible) == 200_000 * 199_999 // 2


def test_groups_have_the_tokens_of_their_texts():
    ids = [[5], [6, 7], [8, 9, 10]]
    examples = Examples(join(ids, None, 0), np.array([0, 0, 1], np.int32))
    pairs = draw_pairs(np.asarray(examples.labels), 100, 0)
    grouped = as_groups(examples, pairs)
    tokens, offsets = grouped.tokens.input_ids, grouped.tokens.offsets
    found = [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert found == [ids[i] for i in pairs.texts.reshape(-1)]
    assert grouped.labels.values.tolist() == np.repeat(pairs.same, 2).tolist()
    assert grouped.groups.sizes.tolist() == [2] * len(pairs.same)
    single = alone(examples)
    assert single.labels.values is None
    assert single.groups.sizes.tolist() == [1, 1, 1]
