"""Marks in chat templates around what the assistant says, from which trainers take what to train on.

    {% generation %}{{ message['content'] }}{% endgeneration %}

They render nothing, so that vectors and calibrations hold with and without them. Yet they may change what
stands beside them: Jinja takes line breaks and indents of statements away, and what is between the marks is a
scope of its own. Marks for which that cannot be ruled out belong to the template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

BEGIN, END = "{% generation %}", "{% endgeneration %}"
TOKENS = 5
"""Of which Jinja makes a mark: the brackets, the word, and the spaces between them."""
HARMLESS = {nodes.Output, nodes.If, nodes.For, nodes.Scope}
"""Statements that bind no name outside of themselves, and do not jump."""
OF_CALLS = {"caller", "kwargs", "varargs"}
"""Names that mean something else between marks, which Jinja compiles as a call."""

Lexed: TypeAlias = tuple[str, str]
"""The kind and the text of a token."""


def unmarked(template: str) -> str:
    """The template without marks, or as it is if they could make a difference to what it renders."""
    bare = template.replace(BEGIN, "").replace(END, "")
    if bare == template:
        return template
    try:
        ENVIRONMENT.parse(bare)  # marks that stay must be pairs
        return bare if _only_marks(template, bare) and _scopes_do_not_matter(template) else template
    except TemplateSyntaxError:
        return template


class _Marks(Extension):
    tags = {"generation"}  # noqa: RUF012 the name and type are Jinja's

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


# as transformers sets it up for chat templates
ENVIRONMENT = Environment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Marks, "jinja2.ext.loopcontrols"]
)


def _only_marks(template: str, bare: str) -> bool:
    """Whether Jinja reads the rest as it does without the marks: no text, string or comment had one in it."""
    return _joined(_without_marks(_lexed(template))) == _joined(_lexed(bare))


def _scopes_do_not_matter(template: str) -> bool:
    """Whether nothing from the first mark on binds a name that is read elsewhere."""
    tree = ENVIRONMENT.parse(template)
    kinds = [type(node) for node in tree.find_all(nodes.Stmt)]
    names = {node.name for node in tree.find_all(nodes.Name)}
    return set(kinds[kinds.index(nodes.Scope) :]) <= HARMLESS and not names & OF_CALLS


def _lexed(template: str) -> list[Lexed]:
    return [(kind, text) for _, kind, text in ENVIRONMENT.lex(template)]


def _without_marks(tokens: Sequence[Lexed]) -> Iterator[Lexed]:
    place = 0
    while place < len(tokens):
        text = "".join(text for _, text in tokens[place : place + TOKENS])
        if tokens[place][0] == "block_begin" and text in (BEGIN, END):
            place += TOKENS
        else:
            yield tokens[place]
            place += 1


def _joined(tokens: Iterable[Lexed]) -> list[Lexed]:
    """With texts next to each other as one, which is what a template without marks has there."""
    found: list[Lexed] = []
    for kind, group in groupby(tokens, itemgetter(0)):
        texts = [text for _, text in group]
        found += [(kind, "".join(texts))] if kind == "data" else [(kind, text) for text in texts]
    return found
