"""Long help pages show their options in groups, which have the same names on every page."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from enum import StrEnum
from inspect import Parameter
from typing import Annotated, get_args

from typer.models import OptionInfo

MANY = 12
"""A page with more options than this groups them."""


class Panel(StrEnum):
    """The groups. A dataclass of options names its own as `panel`; those of the others stand first, under
    "Options": the files that are read and written.
    """

    DATA = "Data"
    MODEL = "Model"
    METHOD = "Method"
    TRAINING = "Training"
    REPLIES = "Replies"
    JUDGE = "Judge"
    CHECKS = "Checks"
    SERVER = "Server"


def grouped(parameters: Sequence[tuple[Parameter, Panel | None]]) -> list[Parameter]:
    """The parameters of a command, with their options in panels if there are many."""
    options = [parameter for parameter, _ in parameters if _option(parameter)]
    if len(options) <= MANY:
        return [parameter for parameter, _ in parameters]
    return [_put(parameter, panel) for parameter, panel in parameters]


def _put(parameter: Parameter, panel: Panel | None) -> Parameter:
    if panel is None or not (option := _option(parameter)):
        return parameter
    mine = copy(option)  # the dataclass's own is shared by commands that have no panels
    mine.rich_help_panel = panel.value
    return parameter.replace(annotation=Annotated[get_args(parameter.annotation)[0], mine])


def _option(parameter: Parameter) -> OptionInfo | None:
    return next((one for one in get_args(parameter.annotation) if isinstance(one, OptionInfo)), None)
