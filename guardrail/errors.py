"""Every error that guardrail raises on purpose.

GuardrailError
├── ConfigError              what was loaded is wrong; the command line exits with 2
│   ├── DocumentError        a file that people write; carries every problem, with its place
│   │   ├── PolicyError      a policy file
│   │   └── TraitError       a trait definition
│   ├── VectorError          trait vectors: format, shape, NaN, zero norm, another model
│   ├── CalibrationError     benign statistics: format, another model or vector file, too few prompts
│   ├── ModelError           the model or its tokenizer cannot be guarded
│   ├── RestartNeeded        a reload would change what a guard takes once, when it starts
│   └── PluginError          a plugin that is missing, misspelt or refuses to load
├── ExtractionError          extraction, calibration or evaluation stopped; finished work is kept
│   ├── EndpointError        an OpenAI-compatible endpoint is down, slow, refuses or answers nonsense
│   ├── JudgeError           a judge cannot be reached, or cannot rate this
│   │   └── UselessJudge     a judge does no better than chance on pairs that everybody can tell apart
│   ├── NotInduced           system prompts that ask for a trait do not raise it in this model
│   └── TooFewPairs          too few pairs of replies were kept to compute a vector
└── RequestError             one request could not be served
    ├── PromptError          empty, too long, unknown role, content that is not text
    ├── UnsupportedGeneration  a way of generating that the guard cannot see
    ├── UnguardedCall        the guarded model's own `generate`, which policies forbid
    ├── EvaluationError      no trustworthy decision: non-finite score, a plugin that raised, a time-out
    ├── SteeringError        steering was decided but not applied
    ├── QueueFull            the model's queue is full; try again later
    ├── GuardClosed          the guard was closed
    ├── EscalationError      a ticket that cannot be stored or found, or is already resolved
    └── AuditError           the audit record could not be written
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


class GuardrailError(Exception):
    """The base class of all errors that guardrail raises on purpose."""

    def __str__(self) -> str:
        # a message may quote half a surrogate pair, which no terminal, log or pipe could write
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")


class ConfigError(GuardrailError):
    """Something loaded before the first request is wrong."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a policy file: the message, the key, and the line and column (1-based)."""

    message: str
    path: tuple[str | int, ...] = ()
    line: int | None = None
    column: int | None = None

    @property
    def key(self) -> str:
        """The key path as people write it: `policies[0].action.steer`."""
        parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path]
        return "".join(parts).removeprefix(".")

    def describe(self, source: str = "policies") -> str:
        """`file:line:col: key: message`, without the parts that are unknown."""
        place = ":".join([source, *(str(n) for n in (self.line, self.column) if n is not None)])
        return f"{place}: {self.key}: {self.message}" if self.path else f"{place}: {self.message}"


class DocumentError(ConfigError):
    """A hand-written file is wrong. `problems` lists every problem, in file order."""

    def __init__(self, problems: Sequence[Problem], source: str) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__("\n".join(problem.describe(source) for problem in self.problems))

    @classmethod
    def single(cls, message: str, source: str) -> Self:
        """An error with one problem that has no line or key."""
        return cls([Problem(message)], source)


class PolicyError(DocumentError):
    """A policy file is wrong."""


class TraitError(DocumentError):
    """A trait definition is wrong."""


class VectorError(ConfigError):
    """Trait vectors cannot be used."""


class CalibrationError(ConfigError):
    """A calibration cannot be used."""


class ModelError(ConfigError):
    """The model or its tokenizer cannot be guarded."""


class RestartNeeded(ConfigError):
    """A reload would change what a guard takes once, when it starts."""


class PluginError(ConfigError):
    """A plugin is missing, not allowed, or does not fit the specification."""


class ExtractionError(GuardrailError):
    """Extraction, calibration or evaluation stopped; finished work is kept."""


class EndpointError(ExtractionError):
    """An OpenAI-compatible endpoint gave no usable answer. `status` is the last HTTP status, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class JudgeError(ExtractionError):
    """A judge cannot be reached, or cannot rate what it was given."""


class UselessJudge(JudgeError):
    """A judge does no better than chance on replies where it is obvious which one shows the trait."""


class NotInduced(ExtractionError):
    """System prompts that ask for a trait do not raise it in this model: there is nothing to extract."""


class TooFewPairs(ExtractionError):
    """The model shows the trait, but too few pairs of replies were kept to compute a vector."""


class RequestError(GuardrailError):
    """One request could not be served; others are not affected."""


class PromptError(RequestError):
    """The prompt is empty, too long, or contains something that cannot be read.

    `param`: the option or the message that is wrong, if it is a single one: `stop`, `messages[0]`.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class UnsupportedGeneration(RequestError):
    """A way of generating that would bypass the guard."""


class UnguardedCall(RequestError):
    """The guarded model's own `generate` was called, and `unguarded_calls` is `error`."""


class EvaluationError(RequestError):
    """The prompt could not be evaluated: a score is not finite, a plugin failed, or the engine did."""


class SteeringError(RequestError):
    """Steering was decided, but no forward pass was steered."""


class QueueFull(RequestError):
    """The bounded queue in front of the model is full."""


class GuardClosed(RequestError):
    """The guard was closed before the request was served."""


class EscalationError(RequestError):
    """A ticket cannot be stored, does not exist, or is already resolved."""


class AuditError(RequestError):
    """The audit record could not be written, and the configuration forbids answering without it."""

    @classmethod
    def about(cls, log: object, error: Exception) -> Self:
        """What an error of a file or a database says about a log, which is named once."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return cls(f"audit log {log}: {reason}")


def outline(error: BaseException, text: bool = False) -> str:
    """The class of an error, with its message if that is guardrail's own; with `text` any message.

    Other messages may quote the prompt, also as the cause of one of ours, and belong in no log.
    """
    kind, cause = type(error).__name__, error.__cause__
    if text or (cause is None and isinstance(error, GuardrailError) and _raised_here(error)):
        return f"{kind}: {error}"
    return kind if cause is None else f"{kind}, caused by {type(cause).__name__}"


def _raised_here(error: BaseException) -> bool:
    """Whether guardrail itself raised an error: plugins may raise its classes, with texts of their own."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__")).partition(".")[0] == "guardrail"


def located(error: BaseException) -> str:
    """As `outline`, with the lines of code that led to the error, innermost first. For logs."""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    return " < ".join([outline(error), *reversed(frames)])
