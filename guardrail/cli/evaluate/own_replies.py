"""`guardrail evaluate --own-replies`: what the user's own model says to the labelled prompts, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from guardrail.cli.console import note
from guardrail.cli.evaluate.inputs import Opened, definitions_of
from guardrail.cli.evaluate.options import DataOptions, SteeringOptions
from guardrail.cli.judges import checked, chosen
from guardrail.cli.options import JudgeOptions
from guardrail.cli.progress import staged


def with_own_replies(
    opened: Opened, data: DataOptions, asked: SteeringOptions, judge: JudgeOptions
) -> Opened:
    """With the expression of replies that are generated here. Tells how long that takes before it begins."""
    from guardrail.evaluation.own_replies import OwnReplies
    from guardrail.extract.rollouts import RolloutSettings
    from guardrail.extract.workload import forecast, measured

    folder = _folder(data)
    folder.mkdir(parents=True, exist_ok=True)
    traits = opened.material.traits
    definitions = list(definitions_of(traits, asked.definition or traits).values())
    scoring = chosen(judge, opened.model, folder / "judge-cache.sqlite")
    checks = checked(scoring, definitions)
    assert data.own_replies is not None
    own = OwnReplies(
        subject=opened.subject,
        judge=scoring,
        definitions=definitions,
        settings=RolloutSettings(samples=data.own_replies, max_new_tokens=asked.max_new_tokens),
        folder=folder,
    )
    speed = measured(opened.subject, [example.messages for example in opened.material.labelled])
    note(forecast(own.workload(opened.material), speed, checks.seconds_each))
    with staged() as report:
        return replace(opened, material=own.expressed(opened.material, report))


def _folder(data: DataOptions) -> Path:
    assert data.data is not None
    return data.work or data.data.with_name(f"{data.data.name}.own-replies")
