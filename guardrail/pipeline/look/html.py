"""A look as HTML: a fragment for pages, and the same with its style for notebooks. All text is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.pipeline.look.heatmap import heatmap
from guardrail.pipeline.look.results import Look, TraitLook
from guardrail.types.figures import told_apart

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
STYLE = FOLDER / "look.css"


def fragment(look: Look) -> str:
    """The look, for a page with the style sheet `look.css`; it has no scripts and no styles inside."""
    return (
        _environment()
        .get_template("look.html.j2")
        .render(look=look, traits=_sorted(look), heat=_heat(look), told_apart=told_apart)
    )


def alone(look: Look) -> str:
    """The look in a box with its own style, for notebooks."""
    return f'<div class="look alone"><style>{STYLE.read_text(encoding="utf-8")}</style>{fragment(look)}</div>'


def _sorted(look: Look) -> list[TraitLook]:
    """The most unusual trait first."""
    return sorted(look.traits, key=lambda one: -abs(one.score) if one.score == one.score else np.inf)


def _heat(look: Look) -> Any:
    from markupsafe import Markup

    def drawn(trait: TraitLook) -> Markup:
        spread = 1.0 if look.calibrated else float(np.nanstd(trait.grid)) or 1.0
        return Markup(heatmap(trait.trait, trait.grid, look.tokens, trait.layer, spread))

    return drawn


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["score"] = lambda value: "–" if value != value else f"{value:+.2f}"
    return made
