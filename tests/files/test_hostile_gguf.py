"""Headers of GGUF files that nobody's tool writes."""

import struct

import pytest

from guardrail.files.gguf import read_header

STRING, ARRAY, INT32, FLOAT, INT64 = 8, 9, 5, 6, 11
NESTED = struct.pack("<IQ", ARRAY, 1)


def text(value):
    return struct.pack("<Q", len(value)) + value


def file_of(folder, name, kind, value):
    """A file with one entry of metadata and no tensors."""
    path = folder / "hostile.gguf"
    entry = text(name) + struct.pack("<I", kind) + value
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
    return path


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(ARRAY, 3000 * NESTED + struct.pack("<IQ", INT32, 0), id="deeply nested"),
        pytest.param(ARRAY, struct.pack("<IQ", INT64, 2**62), id="an array beyond all memory"),
        pytest.param(ARRAY, struct.pack("<IQ", STRING, 2**62), id="texts without an end"),
        pytest.param(STRING, struct.pack("<Q", 2**64 - 1), id="a text beyond all memory"),
    ],
)
def test_what_reaches_beyond_the_end_is_a_file_cut_short(tmp_path, kind, value):
    with pytest.raises(ValueError, match="cut short or damaged: its header has no end"):
        read_header(file_of(tmp_path, b"a", kind, value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [(FLOAT, struct.pack("<f", float("inf"))), (INT32, struct.pack("<i", -32)), (STRING, text(b"x"))],
)
def test_an_alignment_that_is_none_is_named(tmp_path, kind, value):
    with pytest.raises(ValueError, match="its tensors are aligned to"):
        read_header(file_of(tmp_path, b"general.alignment", kind, value))
