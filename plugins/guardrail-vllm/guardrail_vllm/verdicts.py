"""What the workers tell: one socket for all of them, and whoever waits for word of a request."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio

from guardrail_vllm.worker.reports import Begun, Decided, Ended, Rechecked, Report

log = logging.getLogger("guardrail")


class Word:
    """What the workers have told of one request so far, as futures."""

    def __init__(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        self.key = key
        self.begun: asyncio.Future[Begun] = loop.create_future()
        self.decided: asyncio.Future[Decided] = loop.create_future()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.rechecked: list[Rechecked] = []

    def take(self, report: Report) -> None:
        """One more report. Of several replies to a prompt the first counts."""
        if isinstance(report, Rechecked):
            self.rechecked.append(report)
            return
        future = {Begun: self.begun, Decided: self.decided, Ended: self.ended}[type(report)]
        if not future.done():
            future.set_result(report)  # pyright: ignore


class Verdicts:
    """Listens at `address`, which the workers get with each request."""

    def __init__(self, name: str | None = None) -> None:
        """`name`: this machine's address, if there are workers on others; None: they are all here."""
        self._socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._folder: Path | None = None
        if name is None:
            # nobody else may write to it
            self._folder = Path(tempfile.mkdtemp(prefix="guardrail-"))
            self.address = f"ipc://{self._folder}/reports"
            self._socket.bind(self.address)
        else:
            port = self._socket.bind_to_random_port(f"tcp://{name}")
            self.address = f"tcp://{name}:{port}"
        self._waiting: dict[str, Word] = {}
        self._task = asyncio.get_running_loop().create_task(self._listen())

    def expect(self, key: str) -> Word:
        """Word of a request that is about to be sent."""
        self._waiting[key] = word = Word(key)
        return word

    def forget(self, key: str) -> None:
        """Nobody waits any more."""
        self._waiting.pop(key, None)

    async def _listen(self) -> None:
        reports = msgspec.msgpack.Decoder(list[Report])
        while True:
            data = await self._socket.recv()
            try:
                told = reports.decode(data)
            except msgspec.MsgspecError as error:
                log.warning("a worker sent something that is no report: %s", error)
                continue
            for report in told:
                if word := self._waiting.get(report.key):
                    word.take(report)

    def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        self._socket.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def host(config: Any) -> str | None:
    """This machine's address, if some workers are on others."""
    parallel = config.parallel_config
    away = parallel.nnodes > 1 or parallel.data_parallel_size_local < parallel.data_parallel_size
    if not away and parallel.distributed_executor_backend != "ray":
        return None
    from vllm.utils.network_utils import get_ip

    return get_ip()
