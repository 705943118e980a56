"""The benign prompts of `guardrail calibrate`: JSON Lines, plain text with one prompt a line, or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.calibrate.options import RateOptions, SampleOptions
from guardrail.cli.prompts import STDIN, InputPrompt, has_system, lines, parsed, with_system
from guardrail.errors import CalibrationError, ConfigError
from guardrail.files.json_text import decoded
from guardrail.types import Messages, Position

if TYPE_CHECKING:
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibrate.sample import BenignPrompt, Sample
    from guardrail.extract.subject import Subject

COLUMN = "prompt"


def read_files(options: SampleOptions) -> dict[str | None, BenignFile]:
    """The slices by name, and the benign prompts under None. Raises ConfigError for an empty file."""
    assert options.benign is not None
    files: dict[str | None, BenignFile] = {None: read_benign(options.benign)}
    for name, path in options.slice_files().items():
        files[name] = read_benign(path)
    if empty := [file.name for file in files.values() if not (file.prompts or file.problems)]:
        raise ConfigError("\n".join(f"{name}: the file holds no prompts" for name in empty))
    return files


def check_files(
    files: Mapping[str | None, BenignFile],
    options: SampleOptions,
    rates: RateOptions,
    policies: PolicyFile | None,
) -> None:
    """What can be said without a model. Raises ConfigError for lines that cannot be read, CalibrationError
    and PolicyError for too few prompts."""
    from guardrail.calibrate.sample import problems, some
    from guardrail.calibrate.sizes import Rates, Size, check_sizes

    bad = [*chain(*([*file.problems, *problems(file.prompts)] for file in files.values()))]
    if bad and not options.skip_invalid:
        raise ConfigError("\n".join([*some(bad), "--skip-invalid leaves such prompts out"]))
    sizes: dict[str | None, Size] = {}
    for name, file in files.items():
        binding = name is None or options.worst_slice
        with _named(file):
            size = Size.at_most(file.distinct, options.held_out if binding else 0)
        if binding:
            sizes[name] = size
    check_sizes(sizes, Rates(fpr=rates.fpr, set_fpr=rates.set_fpr), policies)


@contextmanager
def _named(file: BenignFile) -> Generator[None]:
    """Errors about the prompts of a file name it."""
    try:
        yield
    except CalibrationError as error:
        raise CalibrationError(f"{file.name}: {error}") from error


def read_sample(
    files: Mapping[str | None, BenignFile],
    options: SampleOptions,
    subject: Subject,
    positions: Collection[Position] = (),
) -> Sample:
    """The split prompts, with the slices beside them. `positions`: what probes read of each prompt.

    Raises ConfigError with the line of every bad prompt.
    """
    from guardrail.calibrate.sample import read, some

    given = {name: prompts_of(file, options.system, own=name is not None) for name, file in files.items()}
    found = {
        name: read(prompts, lambda messages: subject.render(messages, positions).ids, subject.longest)
        for name, prompts in given.items()
    }
    problems = {name: [*file.problems, *found[name].problems] for name, file in files.items()}
    if (every := [*chain(*problems.values())]) and not options.skip_invalid:
        raise ConfigError("\n".join([*some(every), "--skip-invalid leaves such prompts out"]))
    parts = {
        name: _split(name, file, found[name].prompts, options, len(problems[name]))
        for name, file in files.items()
    }
    return parts.pop(None).beside({name: one for name, one in parts.items() if name is not None})


def prompts_of(file: BenignFile, system: str | None, *, own: bool) -> list[tuple[str, Messages | str]]:
    """The prompts with --system in front. `own`: those with a system message keep it; else it is an error."""
    prompts = [InputPrompt(name=name, content=content) for name, content in file.prompts]
    keep = [own and has_system(prompt.content) for prompt in prompts]
    given = iter(with_system([p for p, kept in zip(prompts, keep, strict=True) if not kept], system))
    found = [prompt if kept else next(given) for prompt, kept in zip(prompts, keep, strict=True)]
    return [(prompt.name, prompt.content) for prompt in found]


def _split(
    slice: str | None,
    file: BenignFile,
    prompts: Sequence[BenignPrompt],
    options: SampleOptions,
    skipped: int,
) -> Sample:
    """A slice is split only if thresholds must hold for it; otherwise all of it shows how often they fire."""
    from guardrail.calibrate.sample import split

    held_out = options.held_out if slice is None or options.worst_slice else 0
    with _named(file):
        sample = split(prompts, held_out, options.seed)
    return replace(sample, source=Path(file.name).name, skipped=skipped)


@dataclass(slots=True)
class BenignFile:
    """The prompts of a file, each with its place (file:line), and the problems with other lines."""

    name: str
    prompts: list[tuple[str, Messages | str]] = field(default_factory=list[tuple[str, "Messages | str"]])
    problems: list[str] = field(default_factory=list[str])

    @property
    def distinct(self) -> int:
        """How many prompts differ. Those that differ may still be rendered alike."""
        return len({repr(content) for _, content in self.prompts})


def read_benign(path: Path) -> BenignFile:
    """`.txt` and `.csv` by their names, anything else as JSON Lines; `-` means standard input.

    Raises ConfigError if the file cannot be read at all.
    """
    name = "<stdin>" if path == STDIN else str(path)
    found = BenignFile(name)
    rows = {".txt": _text, ".csv": _csv}.get(path.suffix.lower(), _json_lines)
    for number, content in rows(path, name):
        where = f"{name}:{number}"
        if isinstance(content, Exception):
            found.problems.append(f"{where}: {content}")
        else:
            found.prompts.append((where, content))
    return found


Row = tuple[int, "Messages | str | Exception"]


def _json_lines(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        if line.strip():
            yield number, _attempt(f"{name}:{number}", line)


def _attempt(name: str, line: bytes) -> Messages | str | Exception:
    try:
        _check_labels(line)
        return parsed(name, line).content
    except ValueError as error:
        return error


def _check_labels(line: bytes) -> None:
    """Raises ValueError for a line of a file for `vectors fit` with a label that is 1."""
    row = decoded(line)
    labels = row.get("labels") if isinstance(row, dict) else None
    if isinstance(labels, dict) and (shown := [str(name) for name, label in labels.items() if label]):
        raise ValueError(f"labelled `{shown[0]}`: a calibration takes harmless prompts only")


def _text(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(lines(path), 1):
        try:
            if line.strip():
                yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            yield number, ValueError(f"not UTF-8 (byte {error.start + 1})")


def _csv(path: Path, name: str) -> Iterator[Row]:
    try:
        text = b"\n".join(lines(path)).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if COLUMN not in (reader.fieldnames or ()):
            raise ConfigError(f"{name}: no column `{COLUMN}`; columns: {', '.join(reader.fieldnames or ())}")
        for row in reader:
            yield reader.line_num, row[COLUMN] or ""
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{name}: cannot be read as CSV: {error}") from error
