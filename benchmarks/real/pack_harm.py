"""A pack that finds requests for harm: `vectors fit` on labelled prompts, the parts of `pack_prompts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.real.pack_card import WEIGHTS, Words
from benchmarks.real.pack_contents import ORDINARY, command
from benchmarks.real.pack_prompts import parts, write_labelled, write_unlabelled
from benchmarks.real.prompt_files import Prompt
from guardrail.plugins.pack import Number
from guardrail.vectors.values import TraitVectors

ORIGIN = (
    "`vectors fit` on harmful prompts (AdvBench and TDC 2023, MIT), ordinary prompts (self-instruct, Vicuna "
    "and MT-Bench, Apache-2.0), and pairs of look-alikes and harmful twins written here (Apache-2.0). "
    "`calibrate --worst-slice` on ordinary prompts, and on kinds of look-alikes that the fit had not seen."
)
MEASURED = (
    "The policy `harm`, at the threshold that keeps a rate of 1 % on ordinary prompts and on look-alikes. "
    "XSTest and Alpaca were never fitted or calibrated on. Intervals are 95 %."
)
LIMITS = (
    WEIGHTS,
    "Fitted mostly on short English requests of one turn. Other languages, long chats, tool results and "
    "jailbreaks were not measured.",
    "The harmful prompts are blunt requests (AdvBench, TDC 2023, and twins written for this project). Much "
    "of what the probe reads is topic and wording, not intent: see the rate on safe look-alikes.",
    "The threshold keeps its rate on prompts like those of the calibration, on average. Yours are others: "
    "begin in shadow mode, and run `guardrail calibrate` on your own traffic.",
    "The vector's steering part is for inspection: it was not shown to steer this model.",
)
UNSAFE, SAFE = "XSTest, unsafe", "XSTest, safe look-alikes"


class Harm:
    """Requests for harm."""

    trait, dtype = "harm", "float32"
    words = Words(origin=ORIGIN, measured=MEASURED, limits=LIMITS)
    pairs: Mapping[str, tuple[str, str]] = {"AUROC, unsafe against safe of XSTest": (UNSAFE, SAFE)}

    def make(self, model: Path, data: Path, out: Path) -> None:
        labelled = write_labelled(parts(data).fit, out.with_name("fit.jsonl"))
        command("vectors", "fit", "--model", model, "--data", labelled, "--trait", self.trait, "--out", out)

    def calibrated_on(self, data: Path, work: Path) -> Sequence[object]:
        found = parts(data)
        ordinary = write_unlabelled(found.ordinary, work / "ordinary.jsonl")
        alike = write_unlabelled(found.alike, work / "look-alikes.jsonl")
        slices = ("--slice", f"look-alikes={alike}", "--worst-slice")
        return ("--benign", ordinary, *slices, "--population", ORDINARY)

    def measured_on(self, data: Path) -> Mapping[str, Sequence[Prompt]]:
        return parts(data).measured

    def known(self, vectors: TraitVectors) -> Sequence[Number]:
        return ()

    def misses(self, numbers: Sequence[Number]) -> Sequence[str]:
        missed = [one for one in numbers if UNSAFE in one.what and one.what.startswith("fires")]
        return [f"It misses {1 - one.value:.0%} of XSTest's unsafe prompts." for one in missed]
