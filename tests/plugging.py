"""A plugin of many kinds at once, whose parts call `at` before they answer."""

from typing import Any, ClassVar

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Answer, NoConfig


class ManyKinds:
    """A scorer, an action and a review. Subclasses override `at` to do something else in some place."""

    name, strength = "many-kinds", 35
    Config: ClassVar = NoConfig
    wanted: ClassVar[str | None] = None
    """What the review asks for."""

    def at(self, place: str, value: Any) -> Any:
        return value

    def score(self, messages):
        return self.at("scorer", 1.0)

    def compile(self, config):
        return "stop"

    def respond(self, config, context):
        return self.at("action", Answer("acted"))

    @hookimpl
    def guardrail_review(self, decision, messages):
        return self.at("review", self.wanted)

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_actions(self):
        return [self]
