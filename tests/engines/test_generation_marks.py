"""Marks of what the assistant says, for trainers: they count only if they may change what is rendered."""

from __future__ import annotations

import pytest
from tiny import TOKENIZER

from guardrail.engines.transformers.fingerprint import described
from guardrail.testing import tiny_model

BRANCH = (
    "{% set end = '!' %}{% for m in messages %}{% if m.role == 'assistant' %}"
    "M{{ m.content ~ end }}{% if loop.last %}.{% endif %}N"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
"""M and N are where marks may stand."""
CONFIG = tiny_model().config
PLAIN = BRANCH.translate({ord(mark): "" for mark in "MN"})


def marked(begin: str = "{% generation %}", end: str = "{% endgeneration %}") -> str:
    return BRANCH.replace("M", begin).replace("N", end)


def bare(template: str) -> str:
    return template.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def digest(template: str) -> str:
    return described("Llama", CONFIG, "weights", TOKENIZER, template, {}).chat_template


def rendered(template: str) -> str:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": content} for role, content in said]
    return str(TOKENIZER.apply_chat_template(messages, chat_template=template, tokenize=False))


@pytest.mark.parametrize(
    "template",
    [
        marked(),
        marked(" {% generation %}", "{% endgeneration %} "),
        marked("{% generation %}{% for x in 'ab' %}{{ x }}{% endfor %}"),
        marked("x{% generation %}{% generation %}", "{% endgeneration %}{% endgeneration %}"),
    ],
)
def test_marks_that_render_nothing_do_not_count(template: str) -> None:
    assert rendered(template) == rendered(bare(template))
    assert digest(template) == digest(bare(template))


def test_a_change_beside_marks_counts() -> None:
    assert digest(marked().replace("!", "?")) != digest(PLAIN)


@pytest.mark.parametrize(
    "template",
    [
        marked("{%- generation %}"),
        marked("{% generation -%}"),
        marked("{%+ generation %}"),
        marked(end="{%- endgeneration %}"),
        marked(end="{% endgeneration +%}"),
        marked("\n  {% generation %}"),
        marked("{% generation %}\n"),
        marked(end="{% endgeneration %}\n"),
        marked("{{ '{% generation %}' }}", ""),
        marked("{# {% generation %} #}", ""),
        marked("{% raw %}{% generation %}{% endraw %}", ""),
        marked("{", "") + "{% generation %}{ x }}{% endgeneration %}",
        marked("{% generation %}", ""),
        marked("", "{% endgeneration %}"),
        marked("{% generation %}{% set end = '?' %}"),
        marked() + "{% set end = 1 %}",
        marked("{% generation %}{{ kwargs }}"),
    ],
)
def test_marks_that_may_change_what_is_rendered_make_another_template(template: str) -> None:
    assert digest(template) not in {digest(bare(template)), digest(PLAIN)}


def test_a_name_that_is_set_later_is_another_inside_of_marks() -> None:
    inside = "{% generation %}{{ bos_token }}{% endgeneration %}{% set bos_token = 'x' %}"
    assert rendered(inside) != rendered(bare(inside))
    assert digest(inside) != digest(bare(inside))
