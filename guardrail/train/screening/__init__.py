"""Screens training data by projection differences (arXiv 2507.21509, section 6)."""

from guardrail.train.screening.judging import SampleJudge
from guardrail.train.screening.results import Screened
from guardrail.train.screening.screening import Screener, ScreeningSettings

__all__ = ["SampleJudge", "Screened", "Screener", "ScreeningSettings"]
