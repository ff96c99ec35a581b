"""Measuring: metrics, a harness for anything that can ask and search, and the report.

Serving never imports it.
"""

from cmt_sdk.evaluation.figures import Figures
from cmt_sdk.evaluation.harness import Asked, Plan, Reply, Subject, run
from cmt_sdk.evaluation.report import Report, evaluate

__all__ = ["Asked", "Figures", "Plan", "Reply", "Report", "Subject", "evaluate", "run"]
