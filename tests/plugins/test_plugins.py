import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from fastapi import FastAPI
from fastapi.testclient import TestClient

from guardrail.actions.block import BlockConfig
from guardrail.cli import run
from guardrail.errors import EvaluationError, PluginError
from guardrail.guard import Guard
from guardrail.plugins.hookspecs import ENGINES, hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import Answer, Examples, JudgeRequest, NoConfig
from guardrail.plugins.registry import Registry
from guardrail.policy.decide import decide, tighten
from guardrail.testing import MemoryAudit, MemoryQueue, decision, hand_made_plan, tiny_fingerprint
from guardrail.types import Facts, Message, Probe, SteerSpec

USER = (Message("user", "Hi"),)


class Shout:
    """An action between escalate and block."""

    name = "shout"
    strength = 35
    Config = NoConfig

    def compile(self, config):
        return "stop"

    def respond(self, config, context):
        return Answer("NO!")


class Length:
    name = "length"

    def score(self, messages):
        return float(sum(len(message.content) for message in messages))


class Strict:
    name = "strict"

    def scores(self, requests):
        return [None if r.answer == "" else 100.0 for r in requests]


class MeanDifference:
    name = "mean-difference"
    needs_scores = False

    def direction(self, examples):
        return examples.positive.mean(0) - examples.negative.mean(0)


class Echo:
    name = "echo"

    def rephrase(self, messages, instruction, complete):
        return messages


def plugin(**hooks):
    """A plugin object with these hooks."""
    return type("Sample", (), {name: staticmethod(hookimpl(hook)) for name, hook in hooks.items()})()


def providing(hook, *items):
    return plugin(**{hook: lambda: list(items)})


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a module with an entry point into a folder of its own."""

    def install(name, source, module=None):
        module = module or f"sample_{name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[guardrail]\n{name} = {module}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


ACTION = """
from guardrail.guard import Guard
from guardrail.plugins.hookspecs import ENGINES, hookimpl
from guardrail.plugins.protocols import NoConfig

class Wave:
    name, strength, Config = "wave", 15, NoConfig
    def compile(self, config): return "stop"
    def respond(self, config, context): raise NotImplementedError

@hookimpl
def guardrail_actions():
    return [Wave()]
"""


# --- built-ins and loading ---------------------------------------------------------------------------


def test_built_ins_come_through_the_same_hooks():
    plugins = Plugins()
    assert {name: action.strength for name, action in plugins.actions.items()} == {
        "steer": 10,
        "rephrase": 20,
        "escalate": 30,
        "block": 40,
    }
    assert sorted(plugins.rephrasers) == ["instruction", "model"]
    assert sorted(plugins.escalation_sinks()) == ["review-queue"]
    assert plugins.named == frozenset()


def test_importing_and_asking_the_plugin_manager_loads_no_torch():
    code = """
import sys
from guardrail.plugins.manager import Plugins
Plugins().action_infos()
sys.exit(any(name in sys.modules for name in ("torch", "transformers", "nnsight")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_installed_is_not_enabled(install):
    install("wave", ACTION)
    plugins = Plugins()
    assert "wave" not in plugins.actions
    assert "sample_wave" not in sys.modules
    (row,) = [row for row in plugins.listing() if row.name == "wave"]
    assert (row.state, row.version, row.hooks) == ("installed", "1.2", ())


def test_a_policy_file_enables_by_name_and_the_old_manager_stays_as_it_was(install):
    install("wave", ACTION)
    before = Plugins()
    after = before.enabled(["wave"])
    assert "wave" in after.actions
    assert after.named == {"wave"}
    assert "wave" not in before.actions
    (row,) = [row for row in after.listing() if row.name == "wave"]
    assert (row.state, row.version, row.hooks) == ("enabled", "1.2", ("guardrail_actions",))


def test_a_caller_enables_by_name_without_giving_leave_to_loosen(install):
    install("wave", ACTION)
    plugins = Plugins(["wave"])
    assert "wave" in plugins.actions
    assert plugins.named == frozenset()
    assert plugins.enabled(["wave"]).named == {"wave"}


def test_the_environment_enables_for_the_command_line(install, monkeypatch, capsys):
    install("wave", ACTION)
    monkeypatch.setenv("GUARDRAIL_PLUGINS", " wave ,")
    assert "wave" in Plugins.from_environment().actions
    assert run(["plugins", "list"]) == 0
    assert "enabled" in capsys.readouterr().out


def test_an_unknown_plugin_is_an_error_with_a_suggestion(install):
    install("text-wave", ACTION)
    with pytest.raises(PluginError, match="`text-wav` is not installed; did you mean `text-wave`"):
        Plugins(["text-wav"])


def test_a_plugin_that_fails_to_load_is_an_error_that_says_why(install):
    install("broken", "import no_such_module_anywhere")
    with pytest.raises(PluginError, match=r"`broken` cannot be loaded: ModuleNotFoundError.*no_such_module"):
        Plugins().enabled(["broken"])


def test_two_packages_with_one_name_are_an_error(install):
    install("wave", ACTION, "sample_wave_one")
    install("wave", ACTION, "sample_wave_two")
    with pytest.raises(PluginError, match="twice: sample_wave_one, sample_wave_two"):
        Plugins(["wave"])


def test_a_misspelt_hook_is_an_error_that_names_plugin_and_hook():
    with pytest.raises(PluginError, match=r"`Sample`.*unknown hook 'guardrail_acton'"):
        Plugins([plugin(guardrail_acton=lambda: None)])


def test_an_argument_that_the_hook_does_not_have_is_an_error():
    with pytest.raises(PluginError, match=r"`Sample`.*guardrail_review(.|\n)*'verdict'"):
        Plugins([plugin(guardrail_review=lambda verdict: None)])


def test_a_hook_without_its_marker_is_an_error():
    with pytest.raises(PluginError, match="`SimpleNamespace`: guardrail_actions lacks @hookimpl"):
        Plugins([SimpleNamespace(guardrail_actions=list)])


def test_a_plugin_without_hooks_is_an_error():
    with pytest.raises(PluginError, match="implements no hook"):
        Plugins([SimpleNamespace()])


def test_wrappers_are_refused():
    def wrapper():
        return (yield)

    wrapping = type("Wrapping", (), {"guardrail_actions": staticmethod(hookimpl(wrapper, wrapper=True))})()
    with pytest.raises(PluginError, match="`Wrapping`: guardrail_actions is a wrapper"):
        Plugins([wrapping])


# --- what plugins provide ----------------------------------------------------------------------------


def test_hook_guardrail_actions():
    plugins = Plugins([providing("guardrail_actions", Shout())])
    info = plugins.action_infos()["shout"]
    assert info.strength == 35
    assert info.compile(info.validate({})) == "stop"


def test_a_plugins_action_may_steer():
    class Nudge(Shout):
        name = "nudge"

        def compile(self, config):
            return SteerSpec(operator="ablate")

    info = Plugins([providing("guardrail_actions", Nudge())]).action_infos()["nudge"]
    assert info.compile(info.validate({})) == SteerSpec(operator="ablate")


def test_two_things_with_one_name_are_an_error_that_names_both():
    class Block(Shout):
        name = "block"

    with pytest.raises(
        PluginError, match=r"`Sample`: Action `block` is already provided by `guardrail.*block`"
    ):
        _ = Plugins([providing("guardrail_actions", Block())]).actions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "allow"}, "cannot be called `allow`"),
        ({"strength": 0}, "strength"),
        ({"strength": True}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"Config": dict}, "Config must be a pydantic model"),
        ({"name": ""}, "has no name"),
        ({"respond": None}, "is not a valid Action"),
    ],
)
def test_an_action_that_does_not_fit_is_an_error(changes, message):
    action = type("Odd", (Shout,), changes)()
    plugins = Plugins([providing("guardrail_actions", action)])
    with pytest.raises(PluginError, match=message):
        _ = plugins.actions


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Shout(), "returned Shout instead of a list"),
        ([object()], "is not a valid Action"),
        ([Shout], "is not a valid Action"),
    ],
)
def test_a_hook_that_returns_something_else_is_an_error(result, message):
    plugins = Plugins([plugin(guardrail_actions=lambda: result)])
    with pytest.raises(PluginError, match=message):
        _ = plugins.actions


def test_a_hook_that_raises_is_an_error_that_names_it():
    plugins = Plugins([plugin(guardrail_scorers=lambda: 1 / 0)])
    with pytest.raises(PluginError, match="`Sample`: guardrail_scorers failed: ZeroDivisionError"):
        _ = plugins.scorers


def test_a_hook_that_returns_none_provides_nothing():
    assert Plugins([plugin(guardrail_scorers=lambda: None)]).scorers == {}


def test_hook_guardrail_scorers():
    scorer = Plugins([providing("guardrail_scorers", Length())]).scorers["length"]
    assert scorer.score(USER) == 2.0


def test_hook_guardrail_rephrasers():
    plugins = Plugins([providing("guardrail_rephrasers", Echo())])
    assert plugins.action_infos()["rephrase"].validate({"by": "echo"}).by == "echo"


def test_hook_guardrail_judges():
    judge = Plugins([providing("guardrail_judges", Strict())]).judges["strict"]
    asked = JudgeRequest(metric="evil", rubric="{question} {answer}", question="Why?", answer="")
    assert judge.scores([asked, replace(asked, answer="Because.")]) == [None, 100.0]


def test_hook_guardrail_extraction_methods():
    plugins = Plugins([providing("guardrail_extraction_methods", MeanDifference())])
    ones, zeros = np.ones((2, 3)), np.zeros((2, 3))
    examples = Examples(positive=ones, negative=zeros, neutral=zeros, states=zeros, scores=zeros[:, 0])
    direction = plugins.extraction_methods["mean-difference"].direction(examples)
    assert direction.tolist() == [1.0, 1.0, 1.0]


def test_hook_guardrail_escalation_sinks():
    mine = MemoryQueue()
    plugins = Plugins([providing("guardrail_escalation_sinks", mine)])
    assert plugins.escalation_sinks()["memory-queue"] is mine
    assert plugins.action_infos()["escalate"].validate({"to": "memory-queue"}).to == "memory-queue"


def test_a_caller_may_replace_a_sink_of_the_same_name():
    mine = MemoryQueue()
    mine.name = "review-queue"
    assert Plugins().escalation_sinks([mine]) == {"review-queue": mine}


def test_hook_guardrail_audit_sinks():
    sink = MemoryAudit()
    plugins = Plugins([plugin(guardrail_audit_sinks=lambda: [sink])])
    assert plugins.audit_sinks() == {"memory": sink}


def test_hook_guardrail_probes():
    weights = np.ones(32, np.float32)
    given = []

    def probes(fingerprint):
        given.append(fingerprint)
        return [Probe(trait="length", layer=2, weights=weights)]

    plugins = Plugins([plugin(guardrail_probes=probes)])
    assert plugins.probes(tiny_fingerprint())["length"].layer == 2
    assert given == [tiny_fingerprint()]


@pytest.mark.parametrize(
    ("layer", "weights", "message"),
    [
        (2, np.ones(31), r"weights \(31,\) do not fit \(32,\)"),
        (0, np.ones(32), "layer 0 is outside 1 to 4"),
        (5, np.ones(32), "layer 5 is outside 1 to 4"),
        (2, np.zeros(32), "zero or not finite"),
        (2, np.full(32, np.nan), "zero or not finite"),
    ],
)
def test_a_probe_that_cannot_be_read_is_an_error(layer, weights, message):
    probe = Probe(trait="odd", layer=layer, weights=weights.astype(np.float32))
    plugins = Plugins([plugin(guardrail_probes=lambda: [probe])])
    with pytest.raises(PluginError, match=message):
        plugins.probes(tiny_fingerprint())


def plugins_engine_that_must_not_run():
    class Earlier:
        guardrail_engines = hookimpl(lambda self: ["mine"])

        @hookimpl
        def guardrail_engine(self, name):
            raise AssertionError("an engine attaches to the model: only one may be made")

    return Earlier()


def test_hook_guardrail_engines():
    plugins = Plugins([providing("guardrail_engines", "mine", "vllm-ahead")])
    assert plugins.engines == (*ENGINES, "mine", "vllm-ahead")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mien", "the engine `mien`; did you mean `mine`"),
        ("transformer", "did you mean `transformers`"),
        ("vlm", "did you mean `vllm`"),
        ("xyz", "known: mine, transformers, transformers-ahead, .*vllm"),
    ],
)
def test_a_misspelt_engine_is_refused_before_a_model_is_loaded(name, message):
    """Also beside a plugin that has an engine of its own."""
    mine = plugin(
        guardrail_engines=lambda: ["mine"], guardrail_engine=unreachable, guardrail_model=unreachable
    )
    with pytest.raises(PluginError, match=message):
        Guard.from_pretrained("nowhere", {}, engine=name, plugins=[mine])


def unreachable(name):
    raise AssertionError(f"asked for {name}")


def test_an_engine_without_a_name_is_an_error():
    with pytest.raises(PluginError, match="`Sample`: guardrail_engine needs guardrail_engines"):
        Plugins([plugin(guardrail_engine=lambda name: None)])
    with pytest.raises(PluginError, match="`Sample`: 3 is not the name of an engine"):
        _ = Plugins([providing("guardrail_engines", 3)]).engines


def test_an_engine_that_is_listed_and_not_made_is_an_error():
    plugins = Plugins([plugin(guardrail_engines=lambda: ["mine"], guardrail_engine=lambda name: None)])
    with pytest.raises(PluginError, match="a plugin lists the engine `mine`, but does not make it"):
        plugins.engine("mine", "model", "tokenizer")


def test_hook_guardrail_engine():
    def engine(name, model):
        return f"engine of {model}" if name == "mine" else None

    plugins = Plugins([plugin(guardrail_engine=engine, guardrail_engines=lambda: ["mine"])])
    assert plugins.engine("mine", "model", "tokenizer") == "engine of model"
    other = plugin(guardrail_engine=lambda name: "other", guardrail_engines=lambda: ["mine"])
    assert Plugins([plugins_engine_that_must_not_run(), other]).engine("mine", 0, 0) == "other"
    with pytest.raises(PluginError, match="no plugin provides the engine `yours`"):
        plugins.engine("yours", "model", "tokenizer")


def test_hook_guardrail_model():
    def loaded(engine, name, arguments):
        return (f"{name} for {engine}", dict(arguments)) if engine == "mine" else None

    plugins = Plugins([plugin(guardrail_model=loaded, guardrail_engines=lambda: ["mine"])])
    assert plugins.load("mine", "model", {"dtype": "float32"}) == ("model for mine", {"dtype": "float32"})
    model, tokenizer = plugins.load("transformers", "demo", {})
    assert (type(model).__name__, tokenizer.is_fast) == ("LlamaForCausalLM", True)


def test_an_installed_plugin_is_enabled_by_the_name_of_its_engine():
    plugins = Plugins()
    assert plugins.knowing("transformers-hooks") is plugins
    assert plugins.knowing("nobody") is plugins
    rows = {row.name: row.state for row in plugins.knowing("text-scorer").listing()}
    assert rows["text-scorer"] == "enabled"


def test_hook_guardrail_startup():
    started = []
    guard = SimpleNamespace(sinks={}, active=SimpleNamespace(plan=hand_made_plan()))
    Plugins([plugin(guardrail_startup=lambda guard: started.append(guard))]).startup(guard)
    assert started == [guard]


def test_hook_guardrail_cli():
    app = typer.Typer()
    registry = Registry([plugin(guardrail_cli=lambda app: app.command("wave")(lambda: None))], ())
    assert len(list(registry.calls("guardrail_cli", app=app))) == 1
    assert [command.name for command in app.registered_commands] == ["wave"]


def test_hook_guardrail_app():
    app = FastAPI()
    Plugins([plugin(guardrail_app=lambda app: app.get("/wave")(lambda: "Hello"))]).extend_app(app)
    assert TestClient(app).get("/wave").json() == "Hello"


def test_a_plugins_verb_is_there_once_the_environment_enables_it(install, monkeypatch, capsys):
    source = """
from guardrail.guard import Guard
from guardrail.plugins.hookspecs import ENGINES, hookimpl

@hookimpl
def guardrail_cli(app):
    @app.command("wave")
    def wave():
        print("waving")
"""
    install("waver", source)
    assert run(["wave"]) == 2
    monkeypatch.setenv("GUARDRAIL_PLUGINS", "waver")
    assert run(["wave"]) == 0
    assert "waving" in capsys.readouterr().out


# --- reviewing a decision ----------------------------------------------------------------------------


def reviewer(answer):
    return plugin(guardrail_review=lambda decision: answer)


def reviewed(one):
    return [(name, review()) for name, review in Plugins([one]).reviewers(decision("allow"), USER)]


def test_hook_guardrail_review():
    seen = []

    def review(decision, messages):
        seen.append((decision.action, messages))
        return "block"

    assert reviewed(plugin(guardrail_review=review)) == [("Sample", "block")]
    assert seen == [("allow", USER)]


def test_a_reviewer_without_an_opinion_asks_for_nothing():
    assert reviewed(reviewer(None)) == [("Sample", None)]


@pytest.mark.parametrize("answer", ["blok", "", 3, "steer"])
def test_an_action_that_a_reviewer_cannot_ask_for_is_an_error_of_the_plugin(answer):
    with pytest.raises(EvaluationError, match="`Sample` asked"):
        reviewed(reviewer(answer))


def test_a_reviewer_that_raises_is_an_error_of_the_plugin():
    with pytest.raises(EvaluationError, match="guardrail_review failed: KeyError"):
        reviewed(plugin(guardrail_review=lambda: {}["x"]))


def test_a_reviewer_tightens_and_loosens_only_where_the_policy_file_names_it(install):
    plan = hand_made_plan()
    blocked = decide(plan, [1.0], Facts())
    allowed = decide(plan, [-1.0], Facts())
    assert tighten(plan, allowed, "block", "why").action == "block"
    assert tighten(plan, blocked, "allow", "why").action == "block"
    assert tighten(plan, blocked, "allow", "why", may_loosen=True).action == "allow"


def test_the_built_in_configurations_need_nothing_where_a_reviewer_may_name_them():
    infos = Plugins().action_infos()
    assert infos["block"].validate({}) == BlockConfig()
    assert [infos[name].compile(infos[name].validate({})) for name in ("block", "escalate", "rephrase")] == [
        "stop"
    ] * 3
