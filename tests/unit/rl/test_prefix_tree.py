"""Prefix trees: each prefix is held once, and each token sees the beginning that is its own."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.prefix_tree import Prefixes, num_common

pytestmark = pytest.mark.unit

# Two letters, so that sequences share much; one may be another's beginning, or the same.
sequences_of_tokens = st.lists(
    st.lists(st.integers(1, 2), min_size=1, max_size=7).map(lambda ids: np.array(ids, np.int32)),
    min_size=1,
    max_size=9,
)


@st.composite
def chosen(draw):
    """Sequences, their prefixes, and some ranks of them, ascending."""
    sequences = draw(sequences_of_tokens)
    prefixes = Prefixes(sequences)
    ranks = draw(st.sets(st.integers(0, len(sequences) - 1), min_size=1))
    return sequences, prefixes, tuple(sorted(ranks))


def beginnings(sequences):
    """Every distinct prefix that is not empty."""
    return {tuple(ids[:length].tolist()) for ids in sequences for length in range(1, len(ids) + 1)}


def at(sequences, prefixes, ranks):
    return [sequences[prefixes.order[rank]] for rank in ranks]


@settings(max_examples=200, deadline=None)
@given(case=chosen())
def test_a_tree_holds_each_distinct_prefix_once_and_spells_each_sequence(case):
    sequences, prefixes, ranks = case
    tree = prefixes.tree(ranks)
    assert sorted(prefixes.order) == list(range(len(sequences)))
    assert len(tree.columns_S) == len(ranks)
    spelt = {}  # prefix by column
    for ids, columns_T in zip(at(sequences, prefixes, ranks), tree.columns_S, strict=True):
        assert (np.diff(columns_T) > 0).all()
        np.testing.assert_array_equal(tree.token_ids_L[columns_T], ids)
        np.testing.assert_array_equal(tree.position_ids_L[columns_T], np.arange(ids.size))
        for depth, column in enumerate(columns_T.tolist()):
            prefix = tuple(ids[: depth + 1].tolist())
            assert spelt.setdefault(column, prefix) == prefix
    assert sorted(spelt) == list(range(tree.token_ids_L.size))
    wanted = beginnings(at(sequences, prefixes, ranks))
    assert len(spelt) == len(wanted)
    assert set(spelt.values()) == wanted


@settings(max_examples=200, deadline=None)
@given(case=chosen())
def test_a_column_is_seen_exactly_by_those_whose_path_it_is_on(case):
    _, prefixes, ranks = case
    tree = prefixes.tree(ranks)
    num = tree.token_ids_L.size
    path = np.zeros((num, num), np.bool_)  # [c, a]: a is on the way from the root to c
    for columns_T in tree.columns_S:
        for depth, column in enumerate(columns_T):
            path[column, columns_T[: depth + 1]] = True
    seen_by, seen = np.arange(num)[:, None], np.arange(num)[None, :]
    np.testing.assert_array_equal((seen <= seen_by) & (seen_by < tree.subtree_end_L[None]), path)


@settings(max_examples=200, deadline=None)
@given(case=chosen())
def test_sizes_are_those_of_the_sets_of_prefixes(case):
    sequences, prefixes, ranks = case
    held = beginnings(at(sequences, prefixes, ranks))
    assert prefixes.num_tokens(ranks) == len(held)
    assert prefixes.num_tokens(()) == 0
    for rank in set(range(len(sequences))) - set(ranks):
        more = beginnings(at(sequences, prefixes, (*ranks, rank)))
        assert prefixes.num_added(ranks, rank) == len(more) - len(held)
    for first, second in pairwise(ranks):
        one, other = at(sequences, prefixes, (first, second))
        assert prefixes.num_shared(first, second) == len(beginnings([one]) & beginnings([other]))


@settings(max_examples=200, deadline=None)
@given(
    sequences=sequences_of_tokens,
    most=st.integers(1, 20),
    group_of=st.integers(1, 3),
    shares=st.booleans(),
)
def test_parts_keep_atoms_whole_within_the_bound_and_are_no_more_than_needed(
    sequences, most, group_of, shares
):
    prefixes = Prefixes(sequences, shares=shares)
    by_atom = {}
    for rank, member in enumerate(prefixes.order):
        by_atom.setdefault(member // group_of, []).append(rank)
    atoms = list(by_atom.values())
    parts = list(prefixes.parts(atoms, most))
    assert sorted(rank for part in parts for rank in part) == list(range(len(sequences)))
    homes = []
    for part in parts:
        assert list(part) == sorted(part)
        inside = [number for number, atom in enumerate(atoms) if atom[0] in part]
        assert sorted(rank for number in inside for rank in atoms[number]) == list(part)
        homes.append(inside)
        assert prefixes.num_tokens(part) <= most or len(inside) == 1
    # Atoms keep their order, and each part is full: the next atom would not have fitted.
    assert [number for inside in homes for number in inside] == list(range(len(atoms)))
    for part, inside in zip(parts[:-1], homes[1:], strict=True):
        assert prefixes.num_tokens(sorted([*part, *atoms[inside[0]]])) > most


@settings(max_examples=100, deadline=None)
@given(sequences=sequences_of_tokens)
def test_without_sharing_a_tree_is_the_sequences_one_after_another(sequences):
    prefixes = Prefixes(sequences, shares=False)
    ranks = range(len(sequences))
    tree = prefixes.tree(ranks)
    assert prefixes.order == tuple(ranks)
    assert prefixes.num_tokens(ranks) == tree.token_ids_L.size
    np.testing.assert_array_equal(tree.token_ids_L, np.concatenate(sequences))
    np.testing.assert_array_equal(
        tree.position_ids_L, np.concatenate([np.arange(ids.size) for ids in sequences])
    )
    ends = np.cumsum([ids.size for ids in sequences])
    np.testing.assert_array_equal(
        tree.subtree_end_L, np.repeat(ends, [ids.size for ids in sequences])
    )
    np.testing.assert_array_equal(np.concatenate(tree.columns_S), np.arange(ends[-1]))


@given(one=st.lists(st.integers(1, 2)), other=st.lists(st.integers(1, 2)))
def test_common_tokens_are_counted_to_the_first_difference(one, other):
    found = num_common(np.array(one, np.int32), np.array(other, np.int32))
    assert one[:found] == other[:found]
    assert found == min(len(one), len(other)) or one[found] != other[found]


def test_tokens_are_compared_as_a_whole_and_not_by_their_bytes():
    rows = [[70_000, 256, 1], [70_000, 1], [70_000, 256, 65_536]]
    prefixes = Prefixes([np.array(row, np.int32) for row in rows])
    assert prefixes.num_tokens(range(3)) == 5
