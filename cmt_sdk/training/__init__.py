"""Training adapters on a frozen model: data, packs, losses and loops.

Needs the `train` extra. Serving never imports it.
"""

from __future__ import annotations

from cmt_sdk.training.losses import Objectives
from cmt_sdk.training.recipe import DatasetSizes, Recipe, ResourceEstimate, objectives_for, rate_for
from cmt_sdk.training.run import Prepared, prepare, train_codec, train_gates
from cmt_sdk.training.task import Plan, Progress

__all__ = [
    "DatasetSizes",
    "Objectives",
    "Plan",
    "Prepared",
    "Progress",
    "Recipe",
    "ResourceEstimate",
    "objectives_for",
    "prepare",
    "rate_for",
    "train_codec",
    "train_gates",
]
