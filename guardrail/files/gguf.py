"""The header of a GGUF file: its metadata, and where its tensors lie.

The reader of the package gguf makes arrays of every token of a vocabulary, which takes seconds; this one
passes over them. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CUT_SHORT = "the file is cut short or damaged"

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: its name, the type that it is stored in, and its bytes in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself. Arrays (the vocabulary) are left out."""

    metadata: Mapping[str, Scalar]
    tensors: tuple[GgufTensor, ...]


def is_gguf(path: Path) -> bool:
    """Whether a file is there and begins like GGUF, whatever it is called."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_header(path: Path) -> GgufHeader:
    """Read a header, and check that the file holds all the tensors that it names.

    Raises ValueError for a file that is not GGUF, or is cut short or damaged; OSError.
    """
    if not is_gguf(path):
        raise ValueError("it is not a GGUF file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            header = _header(_Cursor(data))
        except (struct.error, RecursionError) as error:
            raise ValueError(f"{CUT_SHORT}: its header has no end") from error
        _check_end(header, len(data))
    return header


def _check_end(header: GgufHeader, size: int) -> None:
    for tensor in header.tensors:
        if tensor.start + tensor.size > size:
            raise ValueError(f"{CUT_SHORT}: it ends before the tensor {tensor.name} does")


class _Cursor:
    """Reads a header from front to back. Raises struct.error beyond the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = len(MAGIC)

    def number(self, kind: str) -> Scalar:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def count(self, kind: str = "Q") -> int:
        return int(self.number(kind))

    def text(self) -> str:
        length = self.count()
        start = self.at
        self._pass(length)
        return self.data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Scalar | None:
        """A value of the metadata; None for an array, which is passed over."""
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._pass_over(self.count("I"), self.count())
        if kind not in NUMBERS:
            raise ValueError(f"{CUT_SHORT}: its metadata holds a value of the unknown type {kind}")
        return self.number(NUMBERS[kind])

    def _pass_over(self, kind: int, count: int) -> None:
        if kind in NUMBERS:
            self._pass(count * struct.calcsize(f"<{NUMBERS[kind]}"))
            return
        for _ in range(count):
            self.value(kind)

    def _pass(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise struct.error("beyond the end")


def _aligned(at: int, step: Scalar) -> int:
    """The first place from `at` on where tensors may begin."""
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"{CUT_SHORT}: its tensors are aligned to {step!r}")
    return -(-at // step) * step


def _header(cursor: _Cursor) -> GgufHeader:
    version = cursor.count("I")
    if version not in VERSIONS:
        raise ValueError(f"it is GGUF version {version}; versions 2 and 3 can be read")
    tensors, entries = cursor.count(), cursor.count()
    values = {cursor.text(): cursor.value(cursor.count("I")) for _ in range(entries)}
    metadata = {key: value for key, value in values.items() if value is not None}
    named = [_named(cursor) for _ in range(tensors)]
    start = _aligned(cursor.at, metadata.get("general.alignment", 32))
    return GgufHeader(
        metadata, tuple(GgufTensor(n, s, k, start + offset, _size(n, s, k)) for n, s, k, offset in named)
    )


def _named(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, type, place) of a tensor."""
    name = cursor.text()
    shape = tuple(cursor.count() for _ in range(cursor.count("I")))
    return name, shape, cursor.count("I"), cursor.count()


def _size(name: str, shape: tuple[int, ...], kind: int) -> int:
    """The bytes of a tensor of this shape and type."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        values, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except ValueError:
        raise ValueError(f"the tensor {name} has type {kind}, which the package gguf does not know") from None
    return prod(shape) // values * size
