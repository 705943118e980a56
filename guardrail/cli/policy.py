"""`guardrail policy validate | schema | explain`: neither a model nor torch is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from guardrail.cli.console import JsonFlag, ModelName, number, print_json, print_table
from guardrail.errors import PolicyError

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies
    from guardrail.policy.plan import Rule
    from guardrail.policy.rates import Rate

PolicyFile: TypeAlias = Annotated[Path, typer.Argument(help="A policy file (YAML).")]
FingerprintFile: TypeAlias = Annotated[
    Path | None, typer.Option("--fingerprint", help="JSON of the model's fingerprint, in place of a model.")
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Check, describe and explain policy files.", no_args_is_help=True)
    group.command("validate")(validate)
    group.command("schema")(schema)
    group.command("explain")(explain)
    app.add_typer(group, name="policy")


def validate(
    file: PolicyFile,
    model: ModelName = "demo",
    fingerprint: FingerprintFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a policy file; every problem with its line and column. Exit code 2 where there are any."""
    try:
        loaded = _load(file, model, fingerprint)
    except PolicyError as error:
        if not as_json:
            raise
        print_json({"valid": False, "problems": [_problem(p, error) for p in error.problems]})
        raise typer.Exit(2) from error
    warnings = loaded.plan.warnings
    if as_json:
        print_json(
            {"valid": True, "problems": [], "warnings": warnings, "policy_sha256": loaded.sha256}
            | {"policies": [rule.id for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)]}
        )
        return
    typer.echo(f"{file}: valid; {_counts(loaded)}; sha256 {loaded.sha256[:12]}")
    for warning in warnings:
        typer.echo(f"warning: {warning}")


def schema(as_json: JsonFlag = True) -> None:
    """Print the JSON Schema of policy files, with the configurations of all enabled actions."""
    import json

    from guardrail.plugins.manager import Plugins
    from guardrail.policy.file import schema as policy_schema

    actions = Plugins.from_environment().actions
    typer.echo(json.dumps(policy_schema({n: a.Config for n, a in actions.items()}), indent=2, sort_keys=True))


def explain(
    file: PolicyFile,
    model: ModelName = "demo",
    fingerprint: FingerprintFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a policy file means for a model: layers, thresholds and false-positive rates."""
    loaded = _load(file, model, fingerprint)
    if as_json:
        print_json(_explained(loaded))
    else:
        _print_explained(loaded)


def _load(file: Path, model: str, fingerprint: Path | None) -> ActivePolicies:
    from guardrail.cli.fingerprints import fingerprint_of
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    return load(file, fingerprint_of(model, fingerprint), Plugins.from_environment())


def _problem(problem: object, error: PolicyError) -> dict[str, object]:
    names = ("key", "line", "column", "message")
    return {"file": error.source, **{name: getattr(problem, name) for name in names}}


def _counts(loaded: ActivePolicies) -> str:
    modes = [rule.mode for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)]
    parts = [f"{modes.count(mode)} {mode}" for mode in ("enforce", "shadow", "off") if mode in modes]
    return f"{len(modes)} policies ({', '.join(parts) or 'none'})"


def _explained(loaded: ActivePolicies) -> dict[str, object]:
    from guardrail.policy.rates import rule_rate, set_rate

    return {
        "policy_sha256": loaded.sha256,
        "vectors_sha256": loaded.vectors.sha256,
        "reads_layers": loaded.plan.layers,
        "steers_layers": loaded.plan.steered_layers,
        "follows_layers": loaded.plan.reply_layers,
        "policies": [
            _explained_rule(rule) | {"fpr": rule_rate(rule, loaded.calibration)}
            for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)
        ],
        "set_fpr_upper_bound": set_rate(loaded.plan, loaded.calibration),
        "warnings": loaded.plan.warnings,
    }


def _explained_rule(rule: Rule) -> dict[str, object]:
    from dataclasses import asdict

    steering = rule.steering
    return {
        "id": rule.id,
        "stage": "response" if rule.monitor else "prompt",
        "monitor": rule.monitor and rule.monitor.model_dump(),
        "conversation": next((asdict(c.drift) for c in rule.conditions if c.drift), None),
        "mode": rule.mode,
        "action": rule.action,
        "require_all": rule.require_all,
        "conditions": [
            {name: getattr(c, name) for name in ("trait", "layer", "fires", "threshold", "raw")}
            for c in rule.conditions
        ],
        "share": rule.share,
        "on_error": rule.settings.on_error,
        "on_timeout": rule.on_timeout,
        "timeout_ms": rule.settings.timeout_ms,
        "steering": steering
        and {"operator": steering.operator, "layers": steering.layers, "limits": steering.limits},
    }


def _print_explained(loaded: ActivePolicies) -> None:
    from guardrail.policy.rates import set_rate

    plan, calibration = loaded.plan, loaded.calibration
    print_table(
        ("policy", "mode", "action", "trait", "layer", "fires", "score", "projection", "benign rate (95 %)"),
        (row for rule in (*plan.rules, *plan.reply_rules) for row in _rows(rule, loaded)),
    )
    for rule in (*plan.rules, *plan.reply_rules):
        if line := _followed(rule):
            typer.echo(f"{rule.id}: {line}")
        if rule.steering:
            layers = ", ".join(map(str, rule.steering.layers))
            limits = ", ".join(number(limit) for limit in rule.steering.limits)
            typer.echo(
                f"{rule.id}: {rule.steering.operator} at {layers}" + (f", limits {limits}" if limits else "")
            )
    typer.echo(f"reads layers {', '.join(map(str, plan.layers)) or 'none'}; sha256 {loaded.sha256[:12]}")
    if plan.reply_layers:
        typer.echo(f"follows replies at layers {', '.join(map(str, plan.reply_layers))}")
    total = set_rate(plan, calibration)
    why = (
        "an upper bound: the policies' rates added up, at most 1; policies that fire together make it smaller"
    )
    typer.echo(f"all enforced policies on benign prompts: {_rate(total)} ({why})")
    for warning in plan.warnings:
        typer.echo(f"warning: {warning}")


def _followed(rule: Rule) -> str | None:
    """How a policy follows replies, or the replies of a conversation; its rate is then per reply."""
    if m := rule.monitor:
        how = f"{m.statistic} over {m.window} tokens, looked at every {m.every}"
        return f"response: {how}; its rate is per reply"
    drift = next((c.drift for c in rule.conditions if c.drift), None)
    if drift is None:
        return None
    parameters = f"k {drift.k:g}" if drift.statistic == "cusum" else f"weight {drift.weight:g}"
    return f"conversation: {drift.statistic}, {parameters}; the score is the alarm's value"


def _rows(rule: Rule, loaded: ActivePolicies) -> list[tuple[object, ...]]:
    from guardrail.policy.rates import condition_rate

    rows: list[tuple[object, ...]] = []
    for i, c in enumerate(rule.conditions):
        joined = ("and" if rule.require_all else "or", "", "")
        head = joined if i else (rule.id, rule.mode, rule.action)
        rate = _rate(condition_rate(c, loaded.calibration, rule.monitor))
        rows.append((*head, c.trait, c.layer, c.fires, c.threshold, c.raw, rate))
    return rows


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "unknown"
    return f"{rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}]"
