"""READMEs are true: Python runs, imports exist, commands parse, YAML loads, links lead somewhere."""

import ast
import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer
from policy_files import parse_policies
from ruamel.yaml import YAML

from guardrail.cli import build, run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CLI = ROOT / "guardrail" / "cli" / "README.md"
PIPELINE = ROOT / "guardrail" / "pipeline" / "README.md"
CHECKED = [README, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"] + [
    path for path in sorted((ROOT / "guardrail").rglob("README.md")) if path.parent.name != "demo"
]
"""The model card is written by code, with tests of its own."""
MOST_WORDS = 1500
each_readme = pytest.mark.parametrize("path", CHECKED, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(path, language):
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines(path):
    """Whole commands in blocks of shell or plain text, without comments."""
    lines = [
        line for language in ("sh", "") for block in blocks(path, language) for line in block.splitlines()
    ]
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("guardrail ")]
    return [words[: words.index(">")] if ">" in words else words for words in split]


def mentions(path):
    """Commands in the text, which may leave out what they need to run."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`(guardrail [^`]+)`", text)
    return [shlex.split(" ".join(mention.split())) for mention in found if "..." not in mention]


def found_command(words):
    """The command that these words name, and the words that are left for it. Fails if there is none."""
    command, rest = typer.main.get_command(build()), words[1:]
    while rest and (inner := getattr(command, "commands", {})) and not rest[0].startswith("-"):
        assert rest[0] in inner, f"no command {shlex.join(words)}"
        command, rest = inner[rest[0]], rest[1:]
    return command, rest


def unknown_options(words):
    command, rest = found_command(words)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    return given - known - {"--help", "-h"}


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), namespace)
    said = capsys.readouterr().out
    assert "allow" in said
    assert "block no-malice" in said


def test_the_python_of_the_pipeline_runs(capsys):
    for block in blocks(PIPELINE, "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("answered allow\n['allow', 'allow']\n(1, 8)\n")


@each_readme
def test_imports_exist(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guardrail"):
                exec(ast.unparse(node), {})


def test_yaml_blocks_are_policy_files():
    assert blocks(README, "yaml")
    for block in blocks(README, "yaml"):
        assert parse_policies(block).policies


@each_readme
def test_yaml_blocks_parse(path):
    for block in blocks(path, "yaml"):
        assert YAML(typ="safe").load(block)


@each_readme
def test_whole_commands_parse(path):
    for words in command_lines(path):
        command, rest = found_command(words)
        command.make_context("guardrail", rest).close()


@each_readme
def test_commands_and_their_options_exist(path):
    for words in command_lines(path) + mentions(path):
        assert not unknown_options(words), shlex.join(words)


def test_the_checks_see_the_commands():
    assert len(command_lines(README)) >= 4
    assert len(mentions(README)) >= 4


@pytest.mark.parametrize("words", ["guardrail vectors melt", "guardrail chekc prompt"])
def test_a_command_that_does_not_exist_is_found(words):
    with pytest.raises(AssertionError, match="no command"):
        found_command(words.split())


def test_an_option_that_does_not_exist_is_found():
    words = shlex.split("guardrail vectors extract --tarit=evil --out x --judge demo")
    assert unknown_options(words) == {"--tarit"}


def test_the_help_is_the_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["--help"]) == 0
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.strip().splitlines())
    text = CLI.read_text(encoding="utf-8")
    written = re.search(r"<!-- help -->\n```\n(.*?)\n?```\n<!-- /help -->", text, re.DOTALL)
    assert written
    assert written.group(1).strip() == shown.strip()


def links(path):
    return sorted(set(re.findall(r"\]\(([^):]+)\)", path.read_text(encoding="utf-8"))))


def anchors(path):
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_readme
def test_links_lead_somewhere(path):
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = Path(os.path.normpath(path.parent / file)) if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_readme
def test_files_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    for named in re.findall(r"`((?:guardrail|tests|benchmarks|policies|plugins)/[a-z0-9_/.-]*)`", text):
        assert (ROOT / named).exists(), named


def test_every_verb_is_registered():
    names = {command.name for command in build().registered_commands} | {
        group.name for group in build().registered_groups
    }
    assert {"demo", "chat", "check", "policy", "traits", "vectors", "audit", "plugins"} <= {
        n for n in names if n
    }


def test_contributors_read_of_the_layers_that_are_checked():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    text = (ROOT / "CONTRIBUTING.md").read_text().split("top to bottom")[1].split("Start reading")[0]
    told = [re.findall(r"`(\w+)`", rung) for rung in text.split("->")]
    assert told == [rung.split(" | ") for rung in contract["layers"]]
