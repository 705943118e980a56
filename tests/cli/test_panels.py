"""Long help pages show their options in the same few groups; short ones do not."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import typer
from typer import Argument, Option
from typer.main import get_command

from guardrail import cli
from guardrail.cli.options import ModelOptions, takes_options
from guardrail.cli.panels import MANY, Panel

NAMES = {panel.value for panel in Panel}


def leaves(command):
    if not hasattr(command, "commands"):
        return [command]
    own = [command] if len(command.params) > 2 else []  # `calibrate` works without a subcommand
    return own + [leaf for one in command.commands.values() for leaf in leaves(one)]


@pytest.fixture(scope="module")
def commands():
    return leaves(get_command(cli.build()))


def panels(command):
    return [p.rich_help_panel for p in command.params if p.param_type_name == "option"]


def test_every_page_with_many_options_groups_them_under_known_names(commands):
    many = [panels(command) for command in commands if len(panels(command)) > MANY]
    assert len(many) > 20
    for found in many:
        assert Panel.MODEL.value in found
        assert set(found) <= NAMES | {None}
        assert None in found  # what is read and written stands first


def test_a_page_with_few_options_has_one_list(commands):
    few = [panels(command) for command in commands if len(panels(command)) <= MANY]
    assert few
    assert {panel for found in few for panel in found} == {None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Five:
    """With an argument, which typer shows in a panel of its own."""

    panel: ClassVar = Panel.DATA

    file: Annotated[str, Argument()] = ""
    one: Annotated[int, Option()] = 1
    two: Annotated[int, Option()] = 2
    three: Annotated[int, Option()] = 3
    four: Annotated[int, Option()] = 4
    five: Annotated[int, Option()] = 5


@pytest.mark.parametrize(("more", "expected"), [(False, None), (True, "Data")])
def test_one_option_more_makes_the_difference(more, expected):
    def short(model: ModelOptions, five: Five):
        raise NotImplementedError

    def long(model: ModelOptions, five: Five, extra: Annotated[int, Option()] = 0):
        raise NotImplementedError

    app = typer.Typer(add_completion=False)
    app.command()(takes_options(long if more else short))
    options = {p.name: p for p in get_command(app).params}
    assert options["one"].rich_help_panel == expected
    assert options["file"].rich_help_panel is None
