"""What the README says is so: its Python runs, its YAML loads, its commands exist, its help is the help."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from policy_files import parse_policies

from guardrail.cli import build, run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    said = capsys.readouterr().out
    assert "allow" in said
    assert "block" in said


def test_yaml_blocks_are_policy_files():
    assert blocks("yaml")
    for block in blocks("yaml"):
        assert parse_policies(block).policies


def test_commands_exist():
    commands = [
        line for block in blocks("sh") for line in block.splitlines() if line.startswith("guardrail ")
    ]
    inline = re.findall(r"`(guardrail [^`]+)`", README)
    assert len(commands) >= 4
    for command in commands + inline:
        words = [
            word for word in shlex.split(command.replace("|", " "))[1:] if re.fullmatch(r"[a-z]+", word)
        ][:1]
        assert run([*words, "--help"]) == 0, command


def test_the_help_is_the_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["--help"]) == 0
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())
    written = re.search(r"<!-- help -->\n```\n(.*?)\n?```\n<!-- /help -->", README, re.DOTALL)
    assert written
    assert written.group(1).strip() == shown.strip()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_every_verb_is_registered():
    names = {command.name for command in build().registered_commands} | {
        group.name for group in build().registered_groups
    }
    assert {"demo", "chat", "check", "policy", "traits", "vectors", "audit", "plugins"} <= {
        n for n in names if n
    }
