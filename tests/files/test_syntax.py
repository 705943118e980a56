"""What people read if a file is not YAML."""

import pytest

from guardrail.errors import PolicyError
from guardrail.files.yaml import parse_document


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n\tb: 1", "2:1: a tab is not allowed here; indent with spaces"),
        (
            "a: 1\n  b: 2",
            "2:3: a key cannot be here: check the indentation, and that the line above has its `:`",
        ),
        ("a\nb: 1", "2:1: a key cannot be here: check the indentation, and that the line above has its `:`"),
        ("a:\n  - x\n b: 2", "3:2: wrong indentation: this line does not line up with those above"),
        ("a: b: c", "1:5: a second `:` on one line; text that contains `: ` needs quotes"),
        ("a: 'don't'", "1:9: text after the value; check quotes and indentation"),
        ("a:\n  [1\nb: 2", "3:2: the list or mapping that begins at line 2 lacks a `,` or its `]`"),
        ("\na: 'x", "2:6: the quote that is opened at line 2 is not closed"),
        ("a: @x", "1:4: text that starts with `@` needs quotes"),
        ("a: *x", "1:4: `*x` refers to nothing; `&x` has to come first"),
        ("a: [1,", "1:7: the file ends inside a list or mapping"),
        ('a: "\\q"', "1:6: `\\q` means nothing in double quotes; use single quotes"),
        ("a: ]", "1:4: unexpected `]`"),
        ("a: 1\n---\nb: 2", "2:1: the file holds a second document; remove the line `---`"),
        ("{a: 1}\nb: 2", "2:1: a second value; a file holds one mapping (lines such as `version: 1`)"),
    ],
)
def test_the_parser_is_translated(text, said):
    with pytest.raises(PolicyError) as caught:
        parse_document(text, "x")
    assert str(caught.value) == f"x:{said}"


def test_what_has_no_translation_is_said_as_the_parser_says_it():
    with pytest.raises(PolicyError, match="not YAML: found incompatible YAML document"):
        parse_document("%YAML 3.0\n---\na: 1")


def test_an_anchor_may_be_used_twice():
    assert parse_document("a: &x 1\nb: &x 2\nc: *x").data == {"a": 1, "b": 2, "c": 2}
