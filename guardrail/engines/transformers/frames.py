"""Where the last user turn's text stands in token ids whose messages nobody knows.

What stands around a user's text is learnt from the chat template, by rendering short conversations of marks.
A text that holds such a frame itself looks like the turn that it pretends to be, to the model as well: ids
cannot tell the two apart. Messages can, so `chat` and `check` do not go by frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from guardrail.engines import Span
from guardrail.engines.transformers.turn_marks import Shape, Turn, mark, marked
from guardrail.engines.transformers.turn_spans import Rendering
from guardrail.errors import PromptError

SYSTEM: Turn = ("system", True, 0)
USER: Turn = ("user", True, 0)
REPLY: Turn = ("assistant", True, 0)
CALLS: Turn = ("assistant", False, 1)
RESULT: Turn = ("tool", True, 0)
ENDS_IN_A_USER: tuple[Shape, ...] = (
    (USER,),
    (SYSTEM, USER),
    (USER, REPLY, USER),
    (SYSTEM, USER, REPLY, USER),
)
MARK = re.compile(r"marked(?:turn|argument|call)(?:\d+x)+")
"""What `turn_marks` puts in the place of texts and calls."""
UNKNOWN = (
    "the last user turn's text cannot be found in these token ids: {}; give messages to `chat` or `check`"
)


class Frames:
    """What a chat template puts around the texts of users."""

    def __init__(self, render: Rendering) -> None:
        self._render = render
        found = [frame for shape in ENDS_IN_A_USER for frame in self._before(shape)]
        self.opening = next((gap for gap, begins in found if begins), None)
        """What stands before the text of a user who speaks first."""
        gaps = {gap for gap, begins in found if not begins}
        self.starts = sorted(gap for gap in gaps if gap.strip())
        self.merged = sorted(gap for gap in gaps if not gap.strip())
        """What stands between a system prompt and a user's text in the same turn."""
        self.end = _common(*self._after())
        gaps_of_results = [gap for gap, _ in self._before((USER, CALLS, RESULT))]
        self.results = [tail for gap in gaps_of_results for tail in self._tails(gap)]
        """How tool results begin that stand in a user's turn."""

    def _before(self, shape: Shape) -> Iterator[tuple[str, bool]]:
        """What stands before the last turn's mark, back to the mark before it or to the beginning."""
        # a template may refuse a system prompt, or tools
        with suppress(PromptError):
            text = self._render(marked(shape))
            before, found, _ = text.partition(mark(len(shape) - 1))
            if found:
                ends = [match.end() for match in MARK.finditer(before)]
                yield before[ends[-1] if ends else 0 :], not ends

    def _after(self) -> tuple[str, str]:
        """What stands behind a user's text: at the end of a prompt, and before a reply."""
        last = self._render(marked((USER,))).partition(mark(0))[2]
        answered = self._render(marked((USER, REPLY, USER))).partition(mark(0))[2]
        return last, MARK.split(answered)[0]

    def _tails(self, gap: str) -> list[str]:
        return [gap[gap.rindex(start) + len(start) :] for start in self.starts if start in gap]

    def user_text(self, text: str) -> Span:
        """The characters of the last user turn's text. Raises PromptError if they cannot be told."""
        for start in sorted(self._begins(text), reverse=True):
            if not any(text.startswith(results, start) for results in self.results if results):
                return start, self._ends(text, start)
        raise PromptError(UNKNOWN.format("nothing in them opens a user's turn as the chat template does"))

    def _begins(self, text: str) -> set[int]:
        found = {match.end() for start in self.starts for match in re.finditer(re.escape(start), text)}
        return found | ({len(self.opening)} if self.opening and text.startswith(self.opening) else set())

    def _ends(self, text: str, start: int) -> int:
        end = text.find(self.end, start) if self.end.strip() else -1
        if end < 0:
            raise PromptError(UNKNOWN.format("they do not end where a reply begins"))
        if any(gap in text[start:end] for gap in self.merged):
            raise PromptError(UNKNOWN.format("a system prompt may stand in the same turn"))
        return end


def _common(one: str, other: str) -> str:
    """The beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))]
