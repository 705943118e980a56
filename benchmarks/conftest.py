"""The measured models, made once, on one thread; and pairs within pytest-benchmark."""

import gc
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch

from benchmarks import baseline, subjects
from benchmarks.subjects import Subject
from guardrail.bench.cases import Case
from guardrail.bench.clocks import wall_clock
from guardrail.bench.pairs import without_collector
from guardrail.bench.ratios import Timings, ratio
from guardrail.bench.tables import with_interval
from guardrail.engines.transformers.engine import TransformersEngine

MODELS: dict[str, Callable[[], Subject]] = {
    "12x64": subjects.launch_bound,
    "12x768": subjects.compute_bound,
    "demo": subjects.demo,
}
PAIRS, WARM_UP = 30, 2


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


@pytest.fixture(scope="session")
def committed() -> baseline.Baseline:
    """The ratios that new ones are compared with."""
    return baseline.load()


@pytest.fixture
def in_pairs(benchmark, committed) -> Callable[[Subject, Case], None]:
    """Times guarded calls with a bare one before or after each. Fails if the ratio has regressed."""

    def compare(subject: Subject, case: Case) -> None:
        name = f"{subject.name}: {case.name}"
        assert case.holds(case.guarded(), case.bare()), name
        timings = _timings(benchmark, case)
        if timings is None:
            return
        found = ratio(timings)
        benchmark.extra_info["ratio"] = with_interval(found, 3)
        change = committed.change(name, found)
        benchmark.extra_info["baseline"] = change
        assert change != "regressed", f"{name}: {found}, baseline {committed.ratios[name]}"

    return compare


def _timings(benchmark, case: Case) -> Timings | None:
    """None if benchmarks are disabled: then the guarded call ran once and was not timed."""
    bare: list[float] = []
    clock, rounds = wall_clock(), count()

    def bare_if(wanted: bool) -> None:
        if wanted:
            bare.append(clock(case.bare).total)

    def before() -> None:
        gc.collect()
        bare_if(len(bare) % 2 == 0)

    def after() -> None:
        bare_if(next(rounds) % 2 == 1)

    for _ in range(WARM_UP):
        case.guarded(), case.bare()
    with without_collector():
        benchmark.pedantic(case.guarded, setup=before, teardown=after, rounds=PAIRS)
    if benchmark.disabled:
        return None
    return Timings(tuple(1e3 * seconds for seconds in benchmark.stats.stats.data), tuple(bare))
