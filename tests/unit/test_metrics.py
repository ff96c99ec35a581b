"""Metrics against values computed by hand: the official ones by SQuAD v1.1's rules, the paper's by
its code.
"""

from __future__ import annotations

import pytest

from cmt_sdk.evaluation.metrics import (
    Interval,
    auroc,
    bootstrap,
    exact_match,
    f1,
    normalize,
    paper_exact_match,
    paper_f1,
    recall_at,
    shortest,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a \t cat,\nan owl ", "cat owl"),
        ("theatre and anthem", "theatre and anthem"),
        ("U.S.A.", "usa"),
        ("a-b", "ab"),
        ("$1,000.50", "100050"),
        ("ÉCOLE Normale", "école normale"),
        ("“curly” – quotes", "“curly” – quotes"),
        ("the", ""),
        ("", ""),
    ],
)
def test_normalises_as_squad_does(text: str, expected: str) -> None:
    """Case, ASCII punctuation, articles and white space go; other signs and letters stay."""
    assert normalize(text) == expected


def test_punctuation_goes_before_articles() -> None:
    """A hyphen is dropped first, so that the article in "a-team" is part of a word."""
    assert normalize("a-team the A.") == "ateam"


def test_exact_match_takes_any_reference() -> None:
    """One reference that fits is enough; a part of one is not."""
    assert exact_match("the Norman Conquest.", ["1066", "Norman conquest"]) == 1.0
    assert exact_match("Norman", ["1066", "Norman conquest"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("in the year 1066", ["1066"], 0.5),  # 1 of 3 tokens, 1 of 1: 2 * 1 / (3 + 1)
        ("in the year 1066", ["1066", "year 1066"], 0.8),  # 2 * 2 / (3 + 2) is better
        # one red and one blue are shared: 2 * 2 / (3 + 3)
        ("red red blue", ["red blue blue"], 2 / 3),
        ("nothing", ["1066"], 0.0),
        ("", ["1066"], 0.0),
        ("the", ["a"], 0.0),  # v1.1 scores two empty answers 0, though they match exactly
    ],
)
def test_f1_counts_shared_tokens(prediction: str, references: list[str], expected: float) -> None:
    """Tokens shared as a multiset, against the reference that fits best."""
    assert f1(prediction, references) == pytest.approx(expected)


def test_paper_reference_is_the_shortest_in_characters() -> None:
    """The first of the shortest ones wins."""
    assert shortest(["Denver Broncos", "Broncos", "Seattle"]) == "Broncos"


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("Broncos, who won 24-10", ["Denver Broncos", "Broncos"], 1.0),
        # right, but not as the shortest begins
        ("Denver Broncos", ["Denver Broncos", "Broncos"], 0.0),
        ("The 1975 final", ["19"], 1.0),  # the published code cuts characters, not tokens
        ("1", ["19"], 0.0),
        # nothing is left of the reference, and everything begins with nothing
        ("anything", ["the"], 1.0),
    ],
)
def test_paper_exact_match_is_a_prefix_match(
    prediction: str, references: list[str], expected: float
) -> None:
    """The prediction, cut to the reference's length, has to equal it."""
    assert paper_exact_match(prediction, references) == expected


def test_paper_f1_knows_one_reference() -> None:
    """A perfect fit to a longer reference counts only as far as it fits the shortest."""
    assert paper_f1("Denver Broncos", ["Denver Broncos", "Broncos"]) == pytest.approx(2 / 3)


def test_recall_counts_ranks_from_one() -> None:
    """Ranks up to and including k are found; what is nowhere is not."""
    ranks = [1, 2, 5, 6, None]
    assert [recall_at(k, ranks) for k in (1, 5, 10)] == [0.2, 0.6, 0.8]


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [True, True, False, False], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], 0.0),
        # of four pairs only 0.2 against 0.8 is lost
        ([0.9, 0.2, 0.8, 0.1], [True, True, False, False], 0.75),
        ([0.5, 0.5, 0.1], [True, False, False], 0.75),  # one tie, one win
        ([0.5, 0.5, 0.5], [True, False, True], 0.5),
        ([0.5, 0.6], [True, True], None),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(
    scores: list[float], positive: list[bool], expected: float | None
) -> None:
    """Every positive is set against every negative; a tie counts half; one kind alone has no
    order.
    """
    assert auroc(scores, positive) == expected


def test_bootstrap_holds_the_mean_and_repeats_itself() -> None:
    """The interval encloses the mean, narrows with more values, and a seed gives it again."""
    few, many = bootstrap([0.0, 1.0] * 10, seed=3), bootstrap([0.0, 1.0] * 1000, seed=3)
    assert few == bootstrap([0.0, 1.0] * 10, seed=3)
    assert few.mean == many.mean == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.25 / 2000) ** 0.5, rel=0.1)


def test_bootstrap_of_equal_values_is_a_point() -> None:
    """Without spread there is nothing to be unsure of."""
    assert bootstrap([1.0, 1.0, 1.0], seed=0) == Interval(1.0, 1.0, 1.0)
