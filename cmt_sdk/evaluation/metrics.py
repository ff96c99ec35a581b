"""How good answers, rankings and confidences are. Pure: strings and numbers in, numbers out.

The official metric is SQuAD v1.1's (Rajpurkar et al. 2016). The paper metric is what the public
code behind the tables of CMT, MAC and CaMeLS computes; the two are not comparable.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the bounds of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def normalize(text: str) -> str:
    """Normalize a text as SQuAD v1.1 does.

    Lower-case it and drop ASCII punctuation, English articles and extra white space.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the normalised prediction is one of the normalised references, else 0.0."""
    return float(normalize(prediction) in {normalize(r) for r in references})


def f1(prediction: str, references: Sequence[str]) -> float:
    """Token F1 in [0, 1] against the reference that fits best."""
    return max(_token_f1(prediction, r) for r in references)


def shortest(references: Sequence[str]) -> str:
    """The paper metric's only reference: the shortest in characters, the first of several."""
    return min(references, key=len)


def paper_exact_match(prediction: str, references: Sequence[str]) -> float:
    """1.0 when the normalised prediction begins with the normalised shortest reference, else 0.0.

    The comparison is by characters.
    """
    return float(normalize(prediction).startswith(normalize(shortest(references))))


def paper_f1(prediction: str, references: Sequence[str]) -> float:
    """Token F1 in [0, 1] against the shortest reference."""
    return _token_f1(prediction, shortest(references))


def _token_f1(prediction: str, reference: str) -> float:
    """F1 of the normalised words: twice the shared ones over all of both."""
    predicted = normalize(prediction).split()
    expected = normalize(reference).split()
    shared = (Counter(predicted) & Counter(expected)).total()  # each as often as in both
    return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


def bootstrap(values: Sequence[float], seed: int, draws: int = 1000) -> Interval:
    """The mean with its 95 % bootstrap interval (Efron 1979).

    Args:
        values: The values.
        seed: Draws the resamples.
        draws: The number of resamples; the interval spans their 2.5th to 97.5th percentile.
    """
    sample = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sample.mean()), float(low), float(high))


def recall_at(k: int, ranks: Sequence[int | None]) -> float:
    """The share of ranks (from 1; None for not found) that are at most k."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """The probability that a positive outranks a negative; ties count half.

    It is the statistic U of Mann & Whitney (1947) over the number of pairs.

    Args:
        scores: The scores.
        positive: Of each, whether it is a positive.

    Returns:
        In [0, 1]; None without both kinds.
    """
    is_positive = np.asarray(positive, bool)
    positives = int(is_positive.sum())
    negatives = int((~is_positive).sum())
    if not positives or not negatives:
        return None
    values = np.asarray(scores, np.float64)
    # Equal scores share the mean of their ranks.
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(sizes) - (sizes - 1) / 2  # by group, from 1
    rank_sum = middle_ranks[group[is_positive]].sum()
    # Among themselves the positives have at least 1 + 2 + ... + positives.
    outranked = rank_sum - positives * (positives + 1) / 2
    return float(outranked / (positives * negatives))
