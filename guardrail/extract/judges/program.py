"""A judge that is a Python file of the user's: its function `score(request)` gives 0 to 100, or None.

# positive.py, for `--judge python:positive.py`
from guardrail.extract.judges.rules import coherence

def score(request):  # request.metric, .question, .answer, .rubric, .ended
    return coherence(request.answer) if request.metric == "coherence" else 100 * lexicon(request.answer)
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from guardrail.errors import ConfigError, JudgeError
from guardrail.plugins.protocols import JudgeRequest

FUNCTION = "score"


class ProgramJudge:
    """Runs the file once and its function for each request. The name holds a hash: a changed file is another
    judge. Raises ConfigError for a file that cannot be run or has no such function."""

    def __init__(self, path: Path) -> None:
        try:
            self.name = f"python:{path.name}@{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
            self._score = _function(runpy.run_path(str(path)), path)
        except ConfigError:
            raise
        except Exception as error:  # it is the user's own code
            raise ConfigError(f"the judge {path} cannot be run: {type(error).__name__}: {error}") from error

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Raises JudgeError if the function fails."""
        try:
            return [None if (found := self._score(one)) is None else float(found) for one in requests]
        except Exception as error:  # it is the user's own code
            raise JudgeError(f"the judge {self.name} failed: {type(error).__name__}: {error}") from error


def _function(found: dict[str, object], path: Path) -> Callable[[JudgeRequest], float | None]:
    function = found.get(FUNCTION)
    if not callable(function):
        raise ConfigError(f"the judge {path} has no function `{FUNCTION}(request)`")
    return cast("Callable[[JudgeRequest], float | None]", function)
