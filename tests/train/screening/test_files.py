"""JSON Lines, Parquet and folders of `datasets`: the same rows, numbers and copies."""

import json

import pytest
from screening import rows, write

from guardrail.errors import ConfigError
from guardrail.train.screening import data as chunked
from guardrail.train.screening import lines
from guardrail.train.screening.files import open_data
from guardrail.train.screening.rows import BadRow

ROWS = [
    {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "x"}]}
    for i in range(5)
]


def as_lines(folder):
    return write(folder / "data.jsonl", ROWS)


def as_parquet(folder):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "data.parquet")
    return folder / "data.parquet"


def as_saved(folder):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("made", [as_lines, as_parquet, as_saved])
def test_rows_are_read_in_chunks_and_written_as_they_were(tmp_path, monkeypatch, made):
    monkeypatch.setattr(chunked, "CHUNK", 2)
    data = open_data(made(tmp_path))
    chunks = list(data.chunks())
    assert [list(chunk.numbers) for chunk in chunks] == [[1, 2], [3, 4], [5]]
    assert [row for chunk in chunks for row in chunk.values] == ROWS
    copy = tmp_path / f"copy{data.suffix}"
    writer = data.writer(copy)
    for chunk in chunks:
        writer.write(chunk, [number in (1, 4, 5) for number in chunk.numbers])
    writer.close()
    assert [row for chunk in open_data(copy).chunks() for row in chunk.values] == [ROWS[i] for i in (0, 3, 4)]
    assert data.sha256() == open_data(data.path).sha256() != open_data(copy).sha256()


def test_blank_lines_count_and_broken_and_endless_ones_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"b": "' + b"x" * 500 + b'"}\n\xff\n{"c": 2}')
    (chunk,) = open_data(path).chunks()
    assert list(chunk.numbers) == [1, 3, 4, 5]
    first, long, odd, last = chunk.values
    assert (first, last) == ({"a": 1}, {"c": 2})
    assert isinstance(long, BadRow)
    assert long.kind == "too long"
    assert isinstance(odd, BadRow)
    assert "UTF-8" in str(odd)
    writer = open_data(path).writer(tmp_path / "b.jsonl")
    writer.write(chunk, [True, False, False, True])
    writer.close()
    assert (tmp_path / "b.jsonl").read_bytes() == b'{"a": 1}\n{"c": 2}\n'


def test_what_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "list.json").write_text('\n[{"prompt": "Who?"}]')
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    write(tmp_path / "b.parquet", rows(1))
    for name, said in (
        ("none.jsonl", "no such file"),
        ("a.csv", "not a kind of data"),
        ("list.json", "one JSON list; write an object on each line"),
        ("split", "several splits; name one of them: .*split/train"),
        (".", "not a folder that `datasets` saved"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_data(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        list(open_data(tmp_path / "b.parquet").chunks())
