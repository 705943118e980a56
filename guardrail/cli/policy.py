"""`guardrail policy validate | schema | explain`. A fingerprint file makes model and torch unnecessary."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from typer import Argument

from guardrail.cli.console import interval, number, print_json, print_table
from guardrail.cli.options import (
    POLICIES,
    FingerprintOption,
    ModelOptions,
    OutputOptions,
    add_group,
    policy_file,
    takes_options,
)
from guardrail.errors import PolicyError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.calibration.certificates import Certificate
    from guardrail.policy.loading import ActivePolicies
    from guardrail.policy.plan import Plan
    from guardrail.policy.rates import Rate
    from guardrail.policy.rules import Rule

PolicyFile: TypeAlias = Annotated[Path, Argument(parser=policy_file, metavar="FILE", help=POLICIES)]


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "Check, describe and explain policy files."
    add_group(app, "policy", about, validate=validate, schema=schema, explain=explain)


@takes_options
def validate(
    file: PolicyFile, model: ModelOptions, stand_in: FingerprintOption, output: OutputOptions
) -> None:
    """Check a policy file and list every problem with its line and column. The exit code is then 2."""
    try:
        loaded = _load(file, model, stand_in)
    except PolicyError as error:
        if not output.as_json:
            raise
        print_json({"valid": False, "problems": [_problem(p, error) for p in error.problems]})
        raise typer.Exit(2) from error
    if output.as_json:
        print_json(_valid(loaded))
    else:
        _print_valid(file, loaded)


@takes_options
def schema(output: OutputOptions) -> None:
    """Print the JSON Schema of policy files, with the configurations of all enabled actions."""
    import json

    from guardrail.plugins.manager import Plugins
    from guardrail.policy.file import schema as policy_schema

    actions = Plugins.from_environment().actions
    typer.echo(json.dumps(policy_schema({n: a.Config for n, a in actions.items()}), indent=2, sort_keys=True))


@takes_options
def explain(
    file: PolicyFile, model: ModelOptions, stand_in: FingerprintOption, output: OutputOptions
) -> None:
    """Show what a policy file means for a model: layers, thresholds and false-positive rates."""
    loaded = _load(file, model, stand_in)
    if output.as_json:
        print_json(_explained(loaded))
    else:
        _print_explained(loaded)


def _load(file: Path, model: ModelOptions, stand_in: FingerprintOption) -> ActivePolicies:
    from guardrail.cli.models import check_policies, fingerprint_of
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    if stand_in.fingerprint is None:
        check_policies(file, model)
    return load(file, fingerprint_of(model, stand_in.fingerprint), Plugins.from_environment())


def _valid(loaded: ActivePolicies) -> dict[str, object]:
    return {
        "valid": True,
        "problems": [],
        "warnings": loaded.plan.warnings,
        "policy_sha256": loaded.sha256,
        "policies": [rule.id for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)],
    }


def _print_valid(file: Path, loaded: ActivePolicies) -> None:
    typer.echo(f"{file}: valid; {_counts(loaded)}; sha256 {loaded.sha256[:12]}")
    _print_warnings(loaded)


def _print_warnings(loaded: ActivePolicies) -> None:
    for warning in loaded.plan.warnings:
        typer.echo(f"warning: {warning}")


def _problem(problem: object, error: PolicyError) -> dict[str, object]:
    names = ("key", "line", "column", "message")
    return {"file": error.source, **{name: getattr(problem, name) for name in names}}


def _counts(loaded: ActivePolicies) -> str:
    modes = [rule.mode for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)]
    parts = [f"{modes.count(mode)} {mode}" for mode in ("enforce", "shadow", "off") if mode in modes]
    word = "policy" if len(modes) == 1 else "policies"
    return f"{len(modes)} {word} ({', '.join(parts) or 'none'})"


def _explained(loaded: ActivePolicies) -> dict[str, object]:
    from dataclasses import asdict

    from guardrail.policy.rates import rule_rate, set_rate

    return {
        "policy_sha256": loaded.sha256,
        "vectors_sha256": loaded.vectors.sha256,
        "reads_layers": loaded.plan.layers,
        "steers_layers": loaded.plan.steered_layers,
        "follows_layers": loaded.plan.reply_layers,
        "policies": [
            _explained_rule(rule)
            | {"reads": _read_outs(rule, loaded.plan), "fpr": rule_rate(rule, loaded.calibration)}
            for rule in (*loaded.plan.rules, *loaded.plan.reply_rules)
        ],
        "set_fpr_upper_bound": set_rate(loaded.plan, loaded.calibration),
        "slices": {name: _explained_slice(name, loaded) for name in _slices(loaded)},
        "require_certified": loaded.policies.require_certified,
        "certificates": [
            asdict(one) | {"expires": one.expires, "stale": one.stale(datetime.now(UTC))}
            for one in _certificates(loaded)
        ],
        "warnings": loaded.plan.warnings,
    }


def _certificates(loaded: ActivePolicies) -> Sequence[Certificate]:
    return loaded.calibration.certificates if loaded.calibration else ()


def _print_certificates(loaded: ActivePolicies) -> None:
    for one in _certificates(loaded):
        ends = f", until {one.expires:%Y-%m-%d}" if one.expires else ""
        stale = one.stale(datetime.now(UTC))
        typer.echo(f"certified for {one.configuration}{ends}" + (f": {stale}" if stale else ""))


def _slices(loaded: ActivePolicies) -> Sequence[str]:
    return tuple(loaded.calibration.slices) if loaded.calibration else ()


def _explained_slice(name: str, loaded: ActivePolicies) -> dict[str, object]:
    from guardrail.policy.rates import rule_rate, set_rate

    rates = {rule.id: rule_rate(rule, loaded.calibration, name) for rule in loaded.plan.rules}
    return {"policies": rates, "set_fpr_upper_bound": set_rate(loaded.plan, loaded.calibration, name)}


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
            {name: getattr(c, name) for name in ("trait", "layer", "fires", "threshold", "raw", "slice")}
            for c in rule.conditions
        ],
        "share": rule.share,
        "on_error": rule.settings.on_error,
        "on_timeout": rule.on_timeout,
        "on_stale": rule.settings.on_stale,
        "timeout_ms": rule.settings.timeout_ms,
        "steering": steering
        and {"operator": steering.operator, "layers": steering.layers, "limits": steering.limits},
    }


def _print_explained(loaded: ActivePolicies) -> None:
    rules = (*loaded.plan.rules, *loaded.plan.reply_rules)
    print_table(
        ("policy", "mode", "action", "trait", "layer", "fires", "threshold", "raw", "benign rate (95 %)"),
        (row for rule in rules for row in _rows(rule, loaded)),
    )
    for rule in rules:
        for line in (_read(rule, loaded.plan), _decided(rule), _followed(rule), _steered(rule)):
            if line:
                typer.echo(f"{rule.id}: {line}")
    _print_set(loaded)
    _print_slices(loaded)
    _print_certificates(loaded)
    _print_warnings(loaded)


def _read_outs(rule: Rule, plan: Plan) -> dict[str, str]:
    """What the probe of each condition reads, by its trait and layer."""
    probes = [plan.probes[c.reading] for c in rule.conditions if c.reading is not None and not rule.monitor]
    return {f"{probe.trait} at layer {probe.layer}": probe.read_outs for probe in probes}


def _read(rule: Rule, plan: Plan) -> str | None:
    """What is read besides the prompt's last token."""
    found = [f"{name} reads {what}" for name, what in _read_outs(rule, plan).items() if what != "last"]
    return "; ".join(found) or None


def _print_set(loaded: ActivePolicies) -> None:
    from guardrail.policy.rates import set_rate

    plan = loaded.plan
    typer.echo(f"reads {_layers(plan.layers)}; sha256 {loaded.sha256[:12]}")
    if plan.reply_layers:
        typer.echo(f"follows replies at {_layers(plan.reply_layers)}")
    total = _rate(set_rate(plan, loaded.calibration))
    typer.echo(
        f"all enforced policies on benign prompts: {total} (an upper bound: the sum of the policies' rates, "
        "at most 1; the rate is lower if policies fire together)"
    )


def _print_slices(loaded: ActivePolicies) -> None:
    from guardrail.policy.rates import rule_rate, set_rate

    plan, calibration, rows = loaded.plan, loaded.calibration, list[tuple[str, str, str]]()
    for name in _slices(loaded):
        rows += [(name, rule.id, _rate(rule_rate(rule, calibration, name))) for rule in plan.rules]
        rows.append((name, "all enforced (upper bound)", _rate(set_rate(plan, calibration, name))))
    if rows:
        print_table(("slice", "policy", "rate (95 %)"), rows, title="\non the slices of the calibration")


def _layers(layers: Sequence[int]) -> str:
    word = "layer" if len(layers) == 1 else "layers"
    return f"{word} {', '.join(map(str, layers)) or 'none'}"


def _decided(rule: Rule) -> str | None:
    names = dict.fromkeys(c.slice for c in rule.conditions if c.slice)
    return f"the threshold comes from the slice `{'` and `'.join(names)}`" if names else None


def _steered(rule: Rule) -> str | None:
    if rule.steering is None:
        return None
    layers = ", ".join(map(str, rule.steering.layers))
    limits = ", ".join(number(limit) for limit in rule.steering.limits)
    return f"{rule.steering.operator} at {layers}" + (f", limits {limits}" if limits else "")


def _followed(rule: Rule) -> str | None:
    """How a policy follows replies or a conversation. The rate of one that follows replies is per reply."""
    if m := rule.monitor:
        how = f"{m.statistic} over {m.window} tokens, checked every {m.every}"
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
    return interval(rate, ".2%") or "unknown"
