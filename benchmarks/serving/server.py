"""A real `guardrail serve` in a process of its own, on a free port of the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from guardrail.actions.review_queue import PATH_VARIABLE

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from guardrail.cli import main; main()", "serve", "--port", "0", "--json")
MODEL = "demo"


class Running:
    """Starts the server, and waits until it listens. Ends it with the `with` block, gently.

    Its log goes to the file `server.log` in the folder `work`, its tickets to `tickets.sqlite`. Raises
    RuntimeError if it does not start.
    """

    def __init__(self, work: Path, policies: Path, *options: str) -> None:
        self.work, self.tickets = work, work / "tickets.sqlite"
        with (work / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "--policies", str(policies), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment({PATH_VARIABLE: str(self.tickets)}),
            )
        self.url = self._listening(self.process, log.name)

    @staticmethod
    def _listening(process: subprocess.Popen[bytes], log: str) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with code {process.wait()}; its log is {log}")
        return str(json.loads(line)["url"]).removesuffix("/v1")

    @property
    def resident(self) -> float:
        """Its memory in MiB."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def processor_s(self) -> float:
        """The processor time that it has used, in seconds."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def kill(self) -> None:
        """End it as a machine that fails does: SIGKILL."""
        self.process.kill()
        self._ended()

    def stop(self) -> int:
        """Ask it to finish what runs and to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop() if kind is None else self.kill()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    paths: Sequence[str] = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
