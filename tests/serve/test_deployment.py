"""What operators are given names what exists: metrics in README, dashboard and alerts; paths and options."""

import json
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny import NEVER, guard, policy
from typer.testing import CliRunner

import guardrail.serve
from guardrail import errors
from guardrail.cli import build
from guardrail.serve.app import create_app
from guardrail.serve.metrics import Metrics
from guardrail.serve.settings import ServerSettings

SERVE = Path(guardrail.serve.__file__).parent
ROOT = SERVE.parents[1]
DEPLOY = SERVE / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "guardrail.json").read_text())
SUFFIXES = ("_total", "_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """{name as Prometheus shows it: labels} of everything that a server counts."""
    metrics = Metrics()
    with guard(tmp_path_factory.mktemp("g"), policy(threshold=NEVER), options={"plugins": [metrics]}) as made:
        create_app(made, ServerSettings())
        found = list(metrics.registry.collect())
    return {family.name + ("_total" if family.type == "counter" else ""): family for family in found}


def named(text):
    return set(re.findall(r"\bguardrail_[a-z0-9_]+", text))


def base(name):
    return re.sub(r"_(bucket|count|sum)$", "", name)


def expressions():
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    variables = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    return [*panels, *variables, *(a["expr"] for a in DASHBOARD["annotations"]["list"])]


def alerts():
    groups = YAML(typ="safe").load(DEPLOY / "alerts.yml")["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_the_readme_lists_every_metric_and_no_other(families):
    table = re.findall(
        r"^\| (`guardrail_.*)$", (SERVE / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    listed = set().union(*(named(row.split("|")[0]) for row in table))
    assert listed == {name for name in families if name.startswith("guardrail_")}


@pytest.mark.parametrize("expression", [*expressions(), *alerts()])
def test_every_metric_of_the_dashboard_and_the_alerts_exists(families, expression):
    labels = {"guardrail", "guardrail_policies"}
    assert {base(name) for name in named(expression)} - labels <= set(families)


def test_what_clients_do_wrong_raises_no_alarm():
    (expression,) = [one for one in alerts() if "guardrail_errors_total" in one]
    (left_out,) = re.findall(r'error!~"(.*?)"', expression)
    kinds = {errors.PromptError, errors.UnsupportedGeneration, errors.QueueFull, errors.GuardClosed}
    assert set(left_out.split("|")) == {kind.__name__ for kind in kinds}


def test_every_metric_is_somewhere_on_the_dashboard(families):
    shown = {base(name) for expression in expressions() for name in named(expression)}
    assert {name for name in families if name.startswith("guardrail_")} == shown


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def compose():
    return YAML(typ="safe").load(DEPLOY / "compose.yaml")


def test_what_the_compose_file_mounts_is_there():
    services = compose()["services"]
    for service in ("prometheus", "grafana"):
        for volume in services[service]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), source
    assert (
        DEPLOY / services["guardrail"]["build"]["context"] / "Dockerfile"
    ).resolve() == ROOT / "Dockerfile"
    (source,) = YAML(typ="safe").load(next(DEPLOY.glob("grafana/provisioning/datasources/*")))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert all(port.startswith("127.0.0.1:") for s in services.values() for port in s["ports"])


def test_the_compose_file_serves_the_shipped_policies_with_an_audit_log():
    (mount,) = [v for v in compose()["services"]["guardrail"]["volumes"] if ":/policies:" in v]
    assert mount.startswith("${GUARDRAIL_POLICY_FOLDER:-./policies}")
    shipped = YAML(typ="safe").load(ROOT / "policies" / "chatbot.yaml")
    # a relative path begins where the image runs the server, in the volume for it
    assert "WORKDIR /audit" in (ROOT / "Dockerfile").read_text()
    expected = shipped | {"audit": {"jsonl": "audit.jsonl"}}
    assert YAML(typ="safe").load(DEPLOY / "policies" / "chatbot.yaml") == expected


def test_the_options_in_the_container_files_exist():
    shown = CliRunner().invoke(build(["serve"]), ["serve", "--help"], terminal_width=400).output
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    given = [
        word
        for line in lines
        if re.match("ENTRYPOINT|CMD", line)
        for word in json.loads(line.split(" ", 1)[1])
    ]
    given += [shlex.split(word)[0] for word in compose()["services"]["guardrail"]["command"]]
    options = {word.split("=")[0] for word in given if word.startswith("--")}
    assert len(options) > 4
    assert all(re.search(rf"{option}\b", shown) for option in options), options


def test_everything_that_the_dockerfile_copies_is_there():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert [name for names in copied for name in names.split() if not (ROOT / name).exists()] == []
