"""Labelled prompts from JSON Lines and CSV: every shape that is taken, and every damage that is named."""

import pytest
from labelled import write_lines

from guardrail.errors import ConfigError
from guardrail.extract.fit.csv_file import Columns
from guardrail.extract.fit.reading import read_labelled

HARM = Columns(labels={"harm": "bad"}, source="from")


def read(path, *more, columns=None, **named):
    return read_labelled([path, *more], columns or Columns(), **named)


def test_prompts_texts_and_conversations_with_tools_are_read(tmp_path):
    call = '{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}'
    found = read(
        write_lines(
            tmp_path / "x.jsonl",
            '{"prompt": "one", "labels": {"harm": 1}, "source": "s", "category": "k", "pair": "p"}',
            '{"text": "two", "labels": {"harm": false, "spam": null, "fun": 1}, "language": "en"}',
            '{"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "three"}, '
            f'{{"role": "assistant", "content": "", "tool_calls": [{call}]}}, '
            '{"role": "tool", "content": "found", "tool_call_id": "1"}], "labels": {"harm": 0}, '
            '"tools": [{"type": "function", "function": {"name": "look"}}]}',
        )
    )
    assert not found.problems
    one, two, three = found.rows
    assert (one.source, one.category, one.group, one.labels) == ("s", "k", "p", {"harm": True})
    assert two.labels == {"harm": False, "fun": True}
    assert [message.role for message in three.messages] == ["system", "user", "assistant", "tool"]
    assert three.tools[0]["function"]["name"] == "look"
    assert three.text == "three found"


def test_every_damaged_line_is_named(tmp_path):
    path = write_lines(
        tmp_path / "x.jsonl",
        '{"prompt": "fine", "labels": {"harm": 1}}',
        '{"prompt": "cut',
        '{"prompt": "no label"}',
        '{"prompt": "both", "text": "both", "labels": {"harm": 1}}',
        '{"prompt": "  ", "labels": {"harm": 1}}',
        '{"prompt": "odd", "labels": {"harm": 2}}',
        '{"prompt": "odd", "lables": {"harm": 1}}',
        '{"messages": [{"role": "user", "content": [{"type": "image"}]}], "labels": {"harm": 1}}',
    )
    found = read(path)
    assert [row.place for row in found.rows] == [f"{path}:1"]
    assert [problem.split(": ")[0] for problem in found.problems] == [f"{path}:{n}" for n in range(2, 9)]
    told = "\n".join(found.problems)
    for part in ("not JSON", "no label", "give one of", "is empty", "`labels.harm`", "unknown key `lables`"):
        assert part in told


def test_a_file_is_a_source_only_beside_others(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", '{"prompt": "a", "labels": {"harm": 1}}')
    two = write_lines(tmp_path / "two.jsonl", '{"prompt": "b", "labels": {"harm": 0}, "source": "own"}')
    assert [row.source for row in read(one).rows] == [""]
    assert [row.source for row in read(one, two).rows] == ["one", "own"]


def test_parts_come_from_the_rows_or_from_a_file(tmp_path):
    def line(text, part=None):
        split = f', "split": "{part}"' if part else ""
        return f'{{"prompt": "{text}", "labels": {{"harm": 1}}{split}}}'

    bare = write_lines(tmp_path / "bare.jsonl", line("a"))
    parts = write_lines(
        tmp_path / "parts.jsonl", line("b", "train"), line("c", "validation"), line("d", "test")
    )
    found = read(parts)
    assert [row.split for row in found.rows] == ["train", "validation"]
    assert found.unused == 1
    held = write_lines(tmp_path / "v.jsonl", line("e"))
    assert [row.split for row in read(bare, validation=held).rows] == ["train", "validation"]
    with pytest.raises(ConfigError, match="not both"):
        read(parts, validation=bare)
    with pytest.raises(ConfigError, match=r"bare\.jsonl:1: `split` is missing"):
        read(parts, bare)
    with pytest.raises(ConfigError, match="no prompt has the split `validation`"):
        read(write_lines(tmp_path / "t.jsonl", line("a", "train")))


def test_categories_and_groups_of_a_csv_file(tmp_path):
    path = write_lines(tmp_path / "x.csv", "prompt,bad,kind,twin", "one,1,k,7", "two,0,,7", "three,0,l,")
    found = read(path, columns=Columns(labels={"harm": "bad"}, category="kind", group="twin"))
    assert [(row.category, row.group) for row in found.rows] == [("k", "7"), ("", "7"), ("l", "")]
    with pytest.raises(ConfigError, match="no column `twins`; did you mean `twin`"):
        read(path, columns=Columns(labels={"harm": "bad"}, group="twins"))


def test_columns_of_a_csv_file(tmp_path):
    path = write_lines(
        tmp_path / "x.csv",
        "prompt,bad,from",
        '"one, two",1,s',
        "three,no,t",
        "four,,t",
        "five,maybe,t",
        "six,1",
        '"a',
        'b",TRUE,s',
    )
    found = read(path, columns=HARM)
    assert [(row.messages[0].content, row.labels, row.source) for row in found.rows] == [
        ("one, two", {"harm": True}, "s"),
        ("three", {"harm": False}, "t"),
        ("a\nb", {"harm": True}, "s"),
    ]
    four, five, six = found.problems
    assert "no label" in four
    assert five == f"{path}:5: `bad` is 1 or 0, or empty if nobody judged it, not 'maybe'"
    assert "another number of cells" in six


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (Columns(), "name the column of each label with --label-column; columns: prompt, bad"),
        (Columns(labels={"harm": "bda"}), "no column `bda`"),
        (Columns(labels={"harm": "bad"}, prompt="text"), "no column `text`"),
    ],
)
def test_a_column_that_is_missing_is_named(tmp_path, columns, told):
    with pytest.raises(ConfigError) as caught:
        read(write_lines(tmp_path / "x.csv", "prompt,bad", "one,1"), columns=columns)
    assert told in str(caught.value)


def test_an_empty_file_and_a_missing_one(tmp_path):
    with pytest.raises(ConfigError, match="contains no labelled prompt"):
        read(write_lines(tmp_path / "x.jsonl", ""))
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "nothing.jsonl")
