"""Computes batches on the workers of a Ray cluster, each with a copy of the model. Needs the extra `ray`.

Ray Data would make its workers anew for every data set, and so load the model for every step of an
extraction. These stay: plain actors, restarted when they die, whose batches are then computed again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.errors import ConfigError, ExtractionError
from guardrail.extract.jobs import Job

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

R = TypeVar("R")
LIVES = 10
"""How often a worker is started again, and a batch computed again, before the run gives up."""


class RayRunner:
    """Workers of the cluster that RAY_ADDRESS names, or of a new one on this machine.

    `load` makes a worker's model; it is pickled. `gpus`: how many each worker has. Raises ConfigError without
    ray, and if the cluster has too little for all workers.
    """

    def __init__(self, load: Callable[[], Subject], workers: int, gpus: float = 0.0) -> None:
        check_installed()
        self.width = workers
        self._ray = _connected(workers, gpus)
        options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": LIVES, "max_task_retries": LIVES}
        make = self._ray.remote(**options)(_Worker)
        self._workers = [make.remote(load) for _ in range(workers)]

    def map(self, jobs: Sequence[Job[R]]) -> Iterator[R]:
        """The results, in the order of the jobs. Raises ExtractionError if the workers keep dying."""
        pool = import_module("ray.util").ActorPool(self._workers)
        try:
            yield from pool.map(lambda worker, job: worker.run.remote(job), jobs)
        except self._ray.exceptions.RayActorError as error:
            raise ExtractionError(f"a worker does not start, or dies again and again: {error}") from error

    def close(self) -> None:
        """Give the workers' places back."""
        for worker in self._workers:
            self._ray.kill(worker)


class _Worker:
    """A copy of the model in a process of its own."""

    def __init__(self, load: Callable[[], Subject]) -> None:
        self._subject = load()

    def run(self, job: Job[R]) -> R:
        return job.run(self._subject)


def check_installed() -> None:
    """Raises ConfigError without ray."""
    if find_spec("ray") is None:
        raise ConfigError("--runner ray needs ray: pip install 'persona-guardrail[ray]'")


def _connected(workers: int, gpus: float) -> Any:
    # before it is imported: nothing phones home
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # what it will do some day about devices that nobody asked for
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_module("ray")
    if not ray.is_initialized():
        elsewhere = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **elsewhere)
    _check_free(ray.available_resources(), workers, gpus)
    return ray


def _check_free(found: Mapping[str, float], workers: int, gpus: float) -> None:
    """What is taken may never become free, and workers would wait for it without a word."""
    for kind, wanted in (("CPU", workers), ("GPU", workers * gpus)):
        if found.get(kind, 0) < wanted:
            has = f"the Ray cluster has {found.get(kind, 0):g} free {kind}s, and {wanted:g} are needed"
            raise ConfigError(f"--workers {workers}: {has}")
