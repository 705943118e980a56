"""What is kept of a run beside Trainer's own checkpoints, so that a killed run goes on as if it had not been.

Trainer writes a checkpoint file by file. One counts only once it has `guardrail.json`, which is written last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, check_recipe
from guardrail.files import json_text
from guardrail.train.finetuning.randomness import as_it_was
from guardrail.train.finetuning.results import Evaluation
from guardrail.train.finetuning.settings import FinetuneSettings
from guardrail.train.intervention import Applied, Intervention

MARK = "guardrail.json"
RECIPE = "recipe.json"
Evaluate = Callable[[Any, int], Evaluation]
"""Evaluates a model after so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What was done up to a checkpoint."""

    applied: Applied
    evaluations: tuple[Evaluation, ...] = ()
    resumed_at: tuple[int, ...] = ()


class Checkpoints(TrainerCallback):
    """Evaluates when it is time, and marks whole checkpoints with what was done up to them."""

    def __init__(
        self,
        folder: Path,
        intervention: Intervention,
        evaluate: Evaluate | None,
        settings: FinetuneSettings,
        report: Report,
    ) -> None:
        self._folder, self._intervention, self._evaluate = folder, intervention, evaluate
        self._every, self._report = settings.evaluate_every, report
        self.evaluations: tuple[Evaluation, ...] = ()
        self.resumed_at: tuple[int, ...] = ()

    def restore(self) -> str | None:
        """The checkpoint to go on from, None to begin. What it lacks, or never got whole, is thrown away."""
        found = sorted(self._folder.glob("checkpoint-*"), key=_step)
        for torn in [one for one in found if not (one / MARK).is_file()]:
            shutil.rmtree(torn)
        whole = [one for one in found if (one / MARK).is_file()]
        if not whole:
            return None
        progress = json_text.validated(Progress, json_text.read(whole[-1] / MARK))
        self._intervention.resume(progress.applied)
        self.evaluations = progress.evaluations
        self.resumed_at = (*progress.resumed_at, _step(whole[-1]))
        return str(whole[-1])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        if state.global_step == 0:
            self._look(kwargs["model"], 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        step, last = state.global_step, state.max_steps
        self._report("training", step, last)
        if step == last or (self._every and step % self._every == 0):
            self._look(kwargs["model"], step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer, after it has written everything else."""
        progress = Progress(
            applied=self._intervention.applied, evaluations=self.evaluations, resumed_at=self.resumed_at
        )
        if state.is_world_process_zero:
            write_json(self._folder / f"checkpoint-{state.global_step}" / MARK, asdict(progress))

    def _look(self, model: Any, step: int) -> None:
        if self._evaluate is not None:
            with as_it_was():
                self.evaluations = (*self.evaluations, self._evaluate(model, step))


def check_folder(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Begin a folder, or see that it was begun with the same recipe. Raises ConfigError, ExtractionError."""
    path = folder / RECIPE
    if path.is_file():
        found = json_text.read(path)
        check_recipe(path, found if isinstance(found, dict) else {}, recipe)
        return
    if folder.is_dir() and any(folder.glob("checkpoint-*")):
        raise ConfigError(f"{folder} has checkpoints of something else; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, recipe)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file in one step: it is there as a whole, or not at all."""
    torn = path.with_name(path.name + ".torn")
    torn.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(torn, path)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
