"""A log of either kind, and a place for its anchor."""

import pytest

from guardrail.audit import JsonLines, Sqlite


@pytest.fixture(params=[JsonLines, Sqlite])
def kind(request):
    return request.param


@pytest.fixture
def log(tmp_path):
    return tmp_path / "audit.log"


@pytest.fixture
def anchor(tmp_path):
    return tmp_path / "elsewhere.jsonl"
