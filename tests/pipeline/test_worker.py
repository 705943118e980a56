import os
import threading
from concurrent.futures import CancelledError

import pytest

from guardrail.errors import GuardClosed, QueueFull
from guardrail.pipeline.job import Job
from guardrail.pipeline.worker import Worker


def test_jobs_run_one_after_another_and_return_their_results():
    worker, seen = Worker(), []
    jobs = [worker.submit(lambda job, i=i: seen.append(i) or i) for i in range(20)]
    assert [job.result() for job in jobs] == list(range(20)) == seen
    worker.close()


def test_events_arrive_before_the_result():
    worker = Worker()

    def run(job):
        for piece in "abc":
            job.emit(piece)
        return "done"

    job = worker.submit(run)
    assert list(job.events()) == ["a", "b", "c"]
    assert job.result() == "done"
    worker.close()


def test_errors_reach_the_caller():
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 / 0)
    assert worker.call(lambda: 2) == 2
    worker.close()


def test_waiting_for_an_event_can_time_out():
    worker, gate = Worker(), threading.Event()
    job = worker.submit(lambda job: gate.wait())
    with pytest.raises(TimeoutError):
        job.next_event(0.01)
    gate.set()
    assert job.result()
    worker.close()


def test_a_cancelled_job_stops_at_its_next_event():
    worker, gate = Worker(), threading.Event()

    def run(job):
        gate.wait()
        job.emit("never")

    job = worker.submit(run)
    job.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        job.result()
    worker.close()


def test_a_job_cancelled_before_it_starts_never_runs():
    worker, gate = Worker(), threading.Event()
    worker.submit(lambda job: gate.wait())
    waiting = worker.submit(lambda job: pytest.fail("it ran"))
    waiting.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        waiting.result()
    worker.close()


def test_the_queue_is_bounded():
    worker, gate = Worker(capacity=1), threading.Event()
    running = worker.submit(lambda job: gate.wait())
    running.wait_until_started()
    worker.submit(lambda job: None)
    with pytest.raises(QueueFull):
        worker.submit(lambda job: None)
    gate.set()
    worker.close()


def test_closing_finishes_what_runs_and_refuses_what_waits():
    worker, gate = Worker(), threading.Event()
    running = worker.submit(lambda job: gate.wait())
    running.wait_until_started()
    waiting = worker.submit(lambda job: None)
    closing = threading.Thread(target=worker.close)
    closing.start()
    with pytest.raises(GuardClosed):
        waiting.result()
    gate.set()
    closing.join()
    assert running.result()
    with pytest.raises(GuardClosed):
        worker.submit(lambda job: None)


def test_context_variables_of_the_caller_are_seen():
    from contextvars import ContextVar

    var = ContextVar("var", default=0)
    var.set(5)
    worker = Worker()
    assert worker.call(var.get) == 5
    worker.close()


def test_a_refused_job_counts_as_started_when_it_was_refused():
    job = Job(lambda job: None)
    job.refuse(GuardClosed("closed"))
    assert job.wait_until_started(0)
    assert job.started >= job.submitted


@pytest.mark.parametrize("timed_out", [True, False])
def test_a_cancelled_job_knows_whether_the_time_was_up(timed_out):
    job = Job(lambda job: None)
    assert (job.cancelled, job.timed_out) == (False, False)
    if timed_out:
        job.cancel(timed_out=True)
    else:
        job.cancel()
    assert (job.cancelled, job.timed_out) == (True, timed_out)


def test_several_threads_run_as_many_jobs_at_once_and_no_more():
    worker, full, gate, inside = Worker(threads=3), threading.Semaphore(0), threading.Event(), []

    def run(job):
        inside.append(threading.get_ident())
        full.release()
        gate.wait(5)

    jobs = [worker.submit(run) for _ in range(6)]
    assert all(full.acquire(timeout=5) for _ in range(3))
    assert not full.acquire(timeout=0.05)
    assert len(inside) == 3 == len(set(inside))
    gate.set()
    assert [job.result() for job in jobs] == [None] * 6
    assert len(set(inside)) == 3
    worker.close()


def test_threads_start_only_as_they_are_needed():
    worker = Worker(threads=8)
    for _ in range(5):
        worker.call(lambda: None)
    assert len(worker._pool) == 1
    worker.close()


def test_with_several_threads_a_job_begins_when_it_says_so():
    worker, gate = Worker(threads=2), threading.Event()

    def run(job):
        gate.wait(5)
        job.begin(waited_s=7.0)
        return job.started

    job = worker.submit(run)
    assert not job.wait_until_started(0.05)
    gate.set()
    assert job.wait_until_started(5)
    assert job.result() == job.started > job.submitted + 7.0
    worker.close()


def test_with_several_threads_an_error_also_begins_a_job():
    worker = Worker(threads=2)
    job = worker.submit(lambda job: 1 / 0)
    assert job.wait_until_started(5)
    with pytest.raises(ZeroDivisionError):
        job.result()
    worker.close()


def test_closing_ends_every_thread_after_what_it_runs():
    worker, gate = Worker(threads=2), threading.Event()
    running = [worker.submit(lambda job: job.begin() or gate.wait(5)) for _ in range(2)]
    assert all(job.wait_until_started(5) for job in running)
    waiting = worker.submit(lambda job: None)
    closing = threading.Thread(target=worker.close)
    closing.start()
    with pytest.raises(GuardClosed):
        waiting.result()
    gate.set()
    closing.join(5)
    assert [job.result() for job in running] == [True, True]
    assert not any(thread.is_alive() for thread in worker._pool)


def test_a_job_cannot_wait_for_another_whichever_thread_would_run_it():
    from guardrail.errors import EvaluationError

    worker = Worker(threads=2)
    with pytest.raises(EvaluationError, match="inside one of its own requests"):
        worker.submit(lambda job: worker.call(lambda: None)).result()
    worker.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("ended", [True, False])
def test_after_a_fork_a_request_that_had_ended_does_not_close_the_guard(ended):
    worker, held = Worker(), threading.Event()
    job = worker.submit(lambda _: held.wait(10))
    job.wait_until_started()
    # its thread has not yet put the job away when the caller gets the result, or is in the middle of it
    job.over = ended
    if (child := os.fork()) == 0:
        try:
            os._exit(worker.call(lambda: 3))
        except GuardClosed:
            os._exit(4)
    held.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (3 if ended else 4)
    worker.close()


def test_a_job_is_over_before_its_caller_knows(monkeypatch):
    seen = []
    monkeypatch.setattr(Job, "_end", lambda job, error: seen.append(job.over))
    Job(lambda _: None).execute()
    assert seen == [True]
