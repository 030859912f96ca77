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


@given(SIZES, st.integers(2, 60), st.integers(0, 99))
def test_groups_have_the_pairs_and_the_tokens_of_their_texts(sizes, most, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ids = [[i] * (1 + i % 3) for i in range(len(labels))]
    examples = Examples(join(ids, None, 0), labels)
    pairs = draw_pairs(labels, most, seed)
    grouped = as_groups(examples, pairs)
    tokens, offsets = grouped.tokens.input_ids, grouped.tokens.offsets
    texts = [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert all(text == ids[text[0]] for text in texts)
    found, values = Counter(), grouped.labels.values
    for start, stop in itertools.pairwise(grouped.groups.offsets):
        assert 2 <= stop - start <= 5
        for i in range(start + 1, stop):
            found[(*sorted((texts[start][0], texts[i][0])), values[i] == 1)] += 1
    drawn = zip(np.sort(pairs.texts, axis=1).tolist(), pairs.same.tolist(), strict=True)
    assert found == Counter((*pair, same) for pair, same in drawn)


def test_each_text_can_be_a_group():
    examples = Examples(join([[5], [6, 7], [8, 9, 10]], None, 0), np.array([0, 0, 1], np.int32))
    single = alone(examples)
    assert single.labels.values is None
    assert single.groups.sizes.tolist() == [1, 1, 1]
