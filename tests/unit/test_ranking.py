"""Fusing two ranked lists, and how much of a list fits a budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmt_sdk.retrieval.ranking import Fused, fuse, leading_within, reorder
from cmt_sdk.types import Hit


def test_scores_are_added_each_as_a_share_of_its_own_list():
    """Passage 2 is halfway between the lowest and the best by meaning, and the best by words; each
    keeps its reasons.
    """
    fused = fuse([Hit(1, 0.9), Hit(2, 0.7), Hit(4, 0.5)], [Hit(2, 8.0), Hit(3, 2.0)])
    assert fused == [
        Fused(2, pytest.approx(0.75), vector_rank=2, vector_score=0.7, text_rank=1, text_score=8.0),
        Fused(1, pytest.approx(0.5), vector_rank=1, vector_score=0.9),
        Fused(3, pytest.approx(0.125), text_rank=2, text_score=2.0),
        Fused(4, pytest.approx(0.0), vector_rank=3, vector_score=0.5),
    ]


def test_the_scale_of_a_list_plays_no_part():
    """Cosine and BM25 need not be alike, nor one question's scores like another's."""
    low = fuse([Hit(1, 0.2), Hit(2, 0.1)], [Hit(2, 0.002), Hit(1, 0.001)])
    high = fuse([Hit(1, 0.9), Hit(2, 0.1)], [Hit(2, 90.0), Hit(1, 45.0)])
    assert [f.score for f in low] == pytest.approx([f.score for f in high])


def test_a_clear_winner_counts_more_than_a_close_one():
    """What ranks cannot tell: by words the first two are all but equal, by meaning the second is
    far ahead.
    """
    assert [
        f.passage_id
        for f in fuse([Hit(2, 0.9), Hit(1, 0.1)], [Hit(1, 7.0), Hit(2, 6.9)], weight=0.5)
    ] == [2, 1]
    assert [
        f.passage_id
        for f in fuse([Hit(2, 0.9), Hit(1, 0.1)], [Hit(1, 7.0), Hit(2, 0.9)], weight=0.5)
    ] == [1, 2]


@pytest.mark.parametrize(
    ("weight", "order"),
    [(2.0, [1, 2]), (1.0, [2, 1]), (0.5, [2, 1]), (0.0, [2, 1])],
)
def test_a_weight_moves_the_vector_list(weight, order):
    """A share by meaning counts `weight` times one by words; at weight 0 it still says where a
    passage was found.
    """
    fused = fuse([Hit(1, 0.9)], [Hit(2, 5.0)], weight=weight)
    assert [f.passage_id for f in fused] == order
    total = 1 + weight
    assert {f.passage_id: f.score for f in fused} == {
        1: pytest.approx(weight / total),
        2: pytest.approx(1 / total),
    }
    assert {f.passage_id: f.vector_rank for f in fused} == {1: 1, 2: None}


def test_ties_keep_the_order_of_the_words():
    """Equal sums stand in the order of the text list, what only the vector list holds after
    them.
    """
    assert [
        f.passage_id
        for f in fuse([Hit(1, 0.9), Hit(2, 0.8)], [Hit(2, 6.0), Hit(1, 6.0)], weight=0.0)
    ] == [2, 1]
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
        # only leading items count: a later one that would fit is not taken instead
        ([300, 10], 100, 0),
        ([0, 0], 0, 2),
        ([], 100, 0),
    ],
)
def test_as_many_as_fit(tokens, budget, count):
    """The leading items whose tokens together are within the budget."""
    assert leading_within(tokens, budget) == count


@pytest.mark.parametrize(
    ("likelihoods", "order"),
    [
        ([-5.0, -5.0, -5.0], [0, 1, 2]),
        ([-12.0, -5.0, -7.5], [1, 2, 0]),
        ([-6.0, -4.5], [0, 1]),
        ([-6.0, -3.0], [1, 0]),
        ([-12.0, None, -3.0], [1, 2, 0]),
        ([None, None], [0, 1]),
        ([], []),
    ],
)
def test_likelihoods_outweigh_places_by_two_nats_each(likelihoods, order):
    """An item moves up past another when its question is likelier by more than two nats a place;
    unknown ones are as likely as the best.
    """
    assert [number for number, _ in reorder(likelihoods)] == order


def test_scores_fall_in_the_order_that_likelihoods_give():
    """The best has 1; two nats less are half of it, four a third."""
    assert reorder([-12.0, -5.0, -7.0]) == [
        (1, 1.0),
        (2, pytest.approx(1 / 3)),
        (0, pytest.approx(2 / 7)),
    ]
