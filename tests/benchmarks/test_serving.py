"""The server's benchmarks: arrivals, and a small soak and one kill of a real server."""

import asyncio
import time
from dataclasses import replace
from importlib import import_module
from math import inf
from pathlib import Path
from time import perf_counter

import pytest

import benchmarks.serving
from benchmarks.serving import __main__ as parts
from benchmarks.serving import kills, load, pulse, soak
from benchmarks.serving.arrivals import arrive, poisson
from benchmarks.serving.mixed import Asked, Mixed
from benchmarks.serving.records import Recorded
from benchmarks.serving.soak import Prepared, Subject


@pytest.mark.parametrize(
    "path", sorted(Path(benchmarks.serving.__file__).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_every_module_can_be_imported(path):
    import_module(f"benchmarks.serving.{path.stem}")


def test_poisson_arrivals_have_their_rate_and_are_the_same_in_every_run():
    times = poisson(4000, rate=50.0, seed=3)
    assert times == poisson(4000, rate=50.0, seed=3)
    assert list(times) == sorted(times)
    assert times[-1] == pytest.approx(4000 / 50, rel=0.1)
    assert poisson(3, inf, seed=3) == [0.0, 0.0, 0.0]


async def test_no_more_requests_are_in_flight_than_there_are_places():
    inside, most = 0, 0

    async def send(i):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1
        return i

    found = await arrive(send, poisson(20, inf, 0), places=3)
    assert ([one.seen for one in found], most) == (list(range(20)), 3)


async def test_a_late_request_stays_due_when_it_was():
    began = perf_counter()

    async def send(i):
        await asyncio.sleep(0.02)

    _, second = await arrive(send, [0.0, 0.001], places=1)
    assert second.due - began < 0.02


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return Prepared.into(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def server(prepared):
    with prepared.server("--queue", "6") as server:
        yield server


@pytest.mark.slow
async def test_a_small_soak_finds_nothing(prepared, server):
    async with prepared.client(server) as http:
        mixed = Mixed(http)
        await mixed.learn()
        subject = Subject(server, http, prepared.log, prepared.folder / "policies.yaml", mixed)
        part = await subject.segment(0, 40, 5, places=9)
        full = await soak.refusals(mixed, queue=6)
    found = soak.summed([part], 40, prepared.log) | full | {"alone": mixed.unexplained}
    assert not soak.failed(found), found
    assert (found["requests"], found["reloads"]) == (40, 5)
    assert full["burst_overloads"] >= 12


async def test_what_was_measured_while_the_process_was_stopped_does_not_count(monkeypatch):
    monkeypatch.setattr(pulse, "BEAT_S", 0.01)

    async def segment(stopped_s):
        await asyncio.sleep(0.02)
        time.sleep(stopped_s)
        await asyncio.sleep(0.02)
        return "a segment"

    assert await pulse.unstopped(segment(0.0)) == "a segment"
    monkeypatch.setattr(pulse, "STOPPED_S", 0.1)
    assert await pulse.unstopped(segment(0.3)) is None


@pytest.mark.slow
async def test_a_wrong_answer_and_a_lost_record_are_found(prepared, server):
    async with prepared.client(server) as http:
        mixed = Mixed(http)
        asked = Asked(0, "harmless", False, 0.0)
        mixed.alone["harmless", False] = (await mixed.answer(asked)).seen
        subject = Subject(server, http, prepared.log, prepared.folder / "policies.yaml", mixed)
        told = await mixed.answer(asked)
    right = Recorded(told.seen.audit_id, "answered")
    assert subject.fault(told, {asked.conversation: [right]}) is None
    assert "blocked" in subject.fault(told, {asked.conversation: [replace(right, outcome="blocked")]})
    assert "other" in subject.fault(told, {asked.conversation: [replace(right, id="other")]})
    assert subject.lost([told], {}) == [str(asked)]
    told.seen.text = "something else"
    assert "something else" in subject.fault(told, {})


async def test_a_load_round_counts_what_it_did(prepared, server):
    async with prepared.client(server) as http:
        subject = load.Subject(server, http, prepared.folder / "policies.yaml")
        await subject.choose_prompts(3)
        scenario = load.Scenario(clients=2, requests=6, tokens=3)
        done, texts = await subject.round(scenario, guard=True, seed=0)
    assert (done.outcomes, len(set(texts))) == ({"ok": 6}, 3)
    assert 0 < done.first.p50 <= done.total.p99
    assert 0 < done.processor < 60_000
    assert done.tokens_per_second == pytest.approx(done.per_second * 3)


@pytest.mark.slow
async def test_nothing_that_a_client_was_told_is_lost_by_a_kill(prepared, server):
    async with prepared.client(server) as http:
        kill = await kills.killed(server, http, 1, least=6)
    found = kills.summed([kill], prepared)
    assert (found["faults"], found["audit_intact"]) == ([], True)
    assert found["answered"] >= 6


def test_what_a_kill_has_lost_is_found(prepared, tmp_path):
    told = kills.Told(audit_id="nobody", ticket_id="nothing", outcome="answered")
    prepared.log.touch()
    lost = kills.faults(
        [kills.Kill(number=0, after=0.0, told=[told], wrong=[])], prepared.log, tmp_path / "t"
    )
    assert [text.split(":")[0] for text in lost] == ["no record", "no ticket"]


def test_every_part_is_known_before_any_runs(capsys):
    with pytest.raises(SystemExit):
        parts.main(["proxy", "bench"])
    assert "unknown: bench" in capsys.readouterr().err
