"""Screens training data by projection differences (arXiv 2507.21509, section 6)."""

from guardrail.train.screening.clean import thresholds_of
from guardrail.train.screening.judging import SampleJudge
from guardrail.train.screening.ranking import Ranked, ranking
from guardrail.train.screening.results import Screened
from guardrail.train.screening.screening import Screener, ScreeningSettings
from guardrail.train.screening.thresholds import Threshold, Thresholds
from guardrail.train.screening.writing import Written, write

__all__ = [
    "Ranked",
    "SampleJudge",
    "Screened",
    "Screener",
    "ScreeningSettings",
    "Threshold",
    "Thresholds",
    "Written",
    "ranking",
    "thresholds_of",
    "write",
]
