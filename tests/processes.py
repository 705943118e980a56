"""Real processes that begin with torch loaded, forked from a server that has done nothing else.

Starting Python with torch takes seconds of CPU. A process that is forked here runs its script as its main
module, gets signals and ends as any other: nothing of the interpreter's end is skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SERVER = """
import json, os, socket, sys

import nnsight, transformers.generation.utils, transformers.models.llama.modeling_llama
import guardrail.cli, guardrail.guard, tiny

asked = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, files, _, _ = socket.recv_fds(asked, 1 << 17, 3)
    if not message:
        break
    if (child := os.fork()) == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        asked.close()
        script, environment = json.loads(message)
        os.environ.clear()
        os.environ.update(environment)
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
        break
    for file in files:
        os.close(file)
    asked.send(str(child).encode())
    asked.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
"""


@dataclass
class Running:
    """A process. `stdin` is open until `end`."""

    pid: int
    stdin: IO[str]
    stdout: IO[str]
    _stderr: IO[str]
    _answers: socket.socket
    ended: bool = False

    def end(self) -> tuple[int, str, str]:
        """Wait for it: the exit code (negative: a signal), the rest of stdout, and stderr."""
        self.ended = True
        self.stdin.close()
        said = self.stdout.read()
        code = int(self._answers.recv(100))
        self._stderr.seek(0)
        return code, said, self._stderr.read()


class Server:
    """Starts processes, one at a time."""

    def __init__(self) -> None:
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End the server."""
        self._asked.close()
        self._process.wait()

    @contextmanager
    def start(self, script: str, terminal: int | None = None) -> Iterator[Running]:
        """Begin a script. Its stdin is a pipe, or a terminal."""
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        with (
            open(write_in, "w") as stdin,
            open(read_out) as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            files = [read_in if terminal is None else terminal, write_out, stderr.fileno()]
            message = json.dumps([script, dict(os.environ)]).encode()
            socket.send_fds(self._asked, [message], files)
            os.close(read_in)
            os.close(write_out)
            running = Running(int(self._asked.recv(100)), stdin, stdout, stderr, self._asked)
            try:
                yield running
            finally:
                if not running.ended:
                    os.kill(running.pid, signal.SIGKILL)
                    running.end()

    def run(self, script: str) -> tuple[int, str, str]:
        """A script's exit code, stdout and stderr."""
        with self.start(script) as running:
            return running.end()
