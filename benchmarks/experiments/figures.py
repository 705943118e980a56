"""The figures of the page: what was predicted against what came out, and what prevention costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.report.drawing import CYCLE, GREY, new, style

SHAPES = "os^Dv*PX"


def finetunes(found: Mapping[str, Any], path: Path) -> None:
    """A panel for each trait: the projection difference of the data against the later score."""
    traits = found["traits"]
    runs = {name: one for name, one in found["runs"].items() if "data" in one and "/none/" not in name}
    families = list(dict.fromkeys(name.split("/")[0] for name in runs))
    with style():
        figure = new(11, 5.4)
        panels = figure.subplots(2, 4).flat
        for trait, axes in zip(traits, panels, strict=False):
            for i, family in enumerate(families):
                own = [one for name, one in runs.items() if name.split("/")[0] == family]
                axes.scatter(
                    [one["data"][trait]["value"] for one in own],
                    [one["traits"][trait]["value"] for one in own],
                    color=CYCLE[i % len(CYCLE)],
                    marker=SHAPES[i % len(SHAPES)],
                    s=16,
                    label=family,
                )
            axes.set(title=trait, xlabel="projection difference", ylabel="later score")
        last = list(figure.axes)[-1]
        last.axis("off")
        last.legend(*figure.axes[0].get_legend_handles_labels(), loc="center")
        figure.savefig(path, metadata={"Date": None})


def prevention(found: Mapping[str, Any], path: Path) -> None:
    """A panel for each trait: how much of it is left against coherence."""
    data = list(dict.fromkeys(one["data"] for one in found["rows"] if one["data"] != "benign"))
    with style():
        figure = new(3.6 * len(data), 3.2)
        for axes, name in zip(figure.subplots(1, len(data), squeeze=False)[0], data, strict=True):
            _ways(axes, name, [one for one in found["rows"] if one["data"] == name])
        figure.axes[0].legend()
        figure.savefig(path, metadata={"Date": None})


def _ways(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for i, way in enumerate(dict.fromkeys(one["way"] for one in rows)):
        own = sorted((one for one in rows if one["way"] == way), key=lambda one: one["coefficient"])
        axes.plot(
            [one["trait"]["value"] for one in own],
            [one["coherence"]["value"] for one in own],
            color=CYCLE[i % len(CYCLE)],
            marker=SHAPES[i % len(SHAPES)],
            markersize=4,
            linewidth=1,
            label=way,
        )
    axes.axvline(rows[0]["base"], color=GREY, linewidth=0.8, linestyle=":")
    axes.set(title=name, xlabel="trait score", ylabel="coherence", ylim=(0, 102))
