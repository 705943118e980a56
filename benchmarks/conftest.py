"""The measured models, made once, on one thread."""

from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks import subjects
from benchmarks.subjects import Subject
from guardrail.engines.transformers import TransformersEngine

MODELS: dict[str, Callable[[], Subject]] = {
    "12x64": subjects.launch_bound,
    "12x768": subjects.compute_bound,
    "demo": subjects.demo,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the paired runner."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=MODELS)
def subject(request: pytest.FixtureRequest) -> Subject:
    """A model and its bare copy."""
    return MODELS[request.param]()


@pytest.fixture
def engine(subject: Subject) -> Iterator[TransformersEngine]:
    """The model under guard, for one test."""
    made = TransformersEngine(subject.model, subject.tokenizer, chat_template="builtin:plain")
    yield made
    made.close()
