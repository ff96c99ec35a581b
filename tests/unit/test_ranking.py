"""Fusing two ranked lists, and how much of a list fits a budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmt_sdk.ranking import Fused, fit, fuse, reorder
from cmt_sdk.types import Hit


def test_reciprocal_ranks_are_added():
    """Passage 2 is second by meaning (1/62) and first by words (1/61): it wins, and each keeps its reasons."""
    fused = fuse([Hit(1, 0.9), Hit(2, 0.8)], [Hit(2, 7.5), Hit(3, 4.0)])
    assert fused == [
        Fused(2, pytest.approx(1 / 62 + 1 / 61), vector_rank=2, vector_score=0.8, text_rank=1, text_score=7.5),
        Fused(1, pytest.approx(1 / 61), vector_rank=1, vector_score=0.9),
        Fused(3, pytest.approx(1 / 62), text_rank=2, text_score=4.0),
    ]


def test_scores_play_no_part():
    """Only ranks count: cosine and BM25 are not on one scale."""
    low = fuse([Hit(1, 0.2), Hit(2, 0.1)], [Hit(2, 0.002), Hit(1, 0.001)])
    high = fuse([Hit(1, 0.99), Hit(2, 0.1)], [Hit(2, 90.0), Hit(1, 2.0)])
    assert [f.score for f in low] == [f.score for f in high]


def test_the_constant_weighs_the_first_ranks():
    """With constant 0 the ranks themselves are inverted: 1 + 1/3 beats 1/2 + 1/2."""
    fused = fuse([Hit(1, 0.9), Hit(2, 0.8), Hit(3, 0.7)], [Hit(4, 9.0), Hit(2, 8.0), Hit(1, 7.0)], constant=0)
    assert [(f.passage_id, f.score) for f in fused] == [
        (1, pytest.approx(4 / 3)),
        (4, pytest.approx(1.0)),
        (2, pytest.approx(1.0)),
        (3, pytest.approx(1 / 3)),
    ]


@pytest.mark.parametrize(
    ("weight", "order"),
    [(2.0, [1, 2]), (1.0, [2, 1]), (0.5, [2, 1]), (0.0, [2, 1])],
)
def test_a_weight_moves_the_vector_list(weight, order):
    """A vector rank counts `weight` times a text rank; at weight 0 it still says where a passage was found."""
    fused = fuse([Hit(1, 0.9)], [Hit(2, 5.0)], weight=weight)
    assert [f.passage_id for f in fused] == order
    assert {f.passage_id: f.score for f in fused} == {1: pytest.approx(weight / 61), 2: pytest.approx(1 / 61)}
    assert {f.passage_id: f.vector_rank for f in fused} == {1: 1, 2: None}


def test_ties_keep_the_order_of_the_words():
    """Equal sums stand in the order of the text list, what only the vector list holds after them."""
    assert [f.passage_id for f in fuse([Hit(1, 0.9), Hit(2, 0.8)], [Hit(2, 6.0), Hit(1, 5.0)])] == [2, 1]
    assert [f.passage_id for f in fuse([Hit(8, 0.9)], [Hit(9, 6.0)])] == [9, 8]


def test_one_list_alone_keeps_its_order():
    """Without the other list fusing changes nothing; without both there is nothing."""
    hits = [Hit(5, 0.3), Hit(4, 0.2), Hit(6, 0.1)]
    assert [f.passage_id for f in fuse(hits, [])] == [5, 4, 6]
    assert [f.passage_id for f in fuse([], hits)] == [5, 4, 6]
    assert fuse([], []) == []


ids = st.lists(st.integers(0, 30), unique=True, max_size=20)


@settings(deadline=None)
@given(ids, ids, st.floats(0, 4))
def test_every_passage_appears_once_best_first(vector, text, weight):
    """Fusing neither loses nor repeats a passage, and never puts a worse one first."""
    fused = fuse([Hit(i, 0.0) for i in vector], [Hit(i, 0.0) for i in text], weight=weight)
    assert sorted(f.passage_id for f in fused) == sorted(set(vector) | set(text))
    assert [f.score for f in fused] == sorted((f.score for f in fused), reverse=True)


@pytest.mark.parametrize(
    ("tokens", "budget", "count"),
    [
        ([100, 100, 100], 250, 2),
        ([100, 100, 100], 300, 3),
        ([100, 100, 100], 99, 0),
        ([100, 50], 0, 0),
        ([300, 10], 100, 0),  # only leading items count: a later one that would fit is not taken instead
        ([0, 0], 0, 2),
        ([], 100, 0),
    ],
)
def test_as_many_as_fit(tokens, budget, count):
    """The leading items whose tokens together are within the budget."""
    assert fit(tokens, budget) == count


@pytest.mark.parametrize(
    ("likelihoods", "order"),
    [
        ([-5.0, -5.0, -5.0], [0, 1, 2]),
        ([-9.0, -5.0, -6.5], [1, 2, 0]),
        ([-6.0, -5.5], [0, 1]),
        ([-6.0, -4.0], [1, 0]),
        ([-9.0, None, -3.0], [2, 1, 0]),
        ([None, None], [0, 1]),
        ([], []),
    ],
)
def test_likelihoods_outweigh_places_by_a_nat_each(likelihoods, order):
    """An item moves up past another when its question is likelier by more than a nat a place; unknown ones are average."""
    assert reorder(likelihoods) == order
