"""Real `vllm serve` processes with the guard's flags, and the official client."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from openai import OpenAI

from guardrail import demo

FLAGS = (
    *("--worker-extension-cls", "guardrail_vllm.worker.GuardExtension"),
    *("--logits-processors", "guardrail_vllm.worker:GuardLogits"),
    *("--middleware", "guardrail_vllm.serving.GuardMiddleware"),
    "--enforce-eager",
)
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # tests wait for what the log says, and a vLLM that ran in this process before has asked for less of it
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
POLICIES = """
version: 1
vectors: demo
calibration: demo
audit: {jsonl: audit.jsonl}
defaults: {timeout_ms: 60000}
policies:
  - {id: no-malice, trait: evil, threshold: {fpr: 0.001}, action: block, message: "I can't help with that."}
  - id: to-a-person
    trait: evil
    threshold: {fpr: 0.01}
    action:
      escalate: {to: review-queue, holding: "A person will look at this.", otherwise: block}
  - id: careful-facts
    trait: hallucination
    threshold: {fpr: 0.01}
    action:
      rephrase: {instruction: "If you do not know, say so.", max_attempts: 1, otherwise: block}
  - id: less-flattery
    trait: sycophancy
    threshold: {fpr: 0.01}
    action:
      steer: {operator: cap, at: {percentile: 75}, layers: [8]}
  - id: enough
    trait: evil
    stage: response
    threshold: {raw: -1000}
    monitor: {every: 4}
    when: {tags: [watched]}
    action: block
    message: "That is enough."
"""
START_S = 600
"""On two busy cores; alone it takes a tenth of that."""
PATIENCE_S = 120
"""For what takes a second or two on cores that are free."""


class Served:
    """A `vllm serve` process in a folder of its own, with its log and its audit records."""

    def __init__(self, folder, process, port):
        self.folder, self.process, self.url = folder, process, f"http://127.0.0.1:{port}"
        self.policies = folder / "policies.yaml"
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    @property
    def log(self):
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def healthy(self):
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self):
        """Until it is up. Fails if it ends instead."""

        def up():
            assert self.process.poll() is None, self.log[-5000:]
            return self.healthy()

        self.until(up, START_S)

    def until(self, what, seconds=PATIENCE_S):
        """Until something holds. Fails if it takes too long."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.log[-5000:]
            time.sleep(0.2)

    def ask(self, messages, **options):
        """(headers, the reply)."""
        options = {"model": "demo", "temperature": 0, "max_tokens": 16, **options}
        response = self.client.chat.completions.with_raw_response.create(messages=messages, **options)
        return response.headers, response.parse()

    def stream(self, messages, **options):
        """(headers, the chunks of the first choice that say something)."""
        options = {"model": "demo", "temperature": 0, "max_tokens": 16, "stream": True, **options}
        response = self.client.chat.completions.with_raw_response.create(messages=messages, **options)
        chunks = [chunk.choices[0] for chunk in response.parse() if chunk.choices]
        return response.headers, chunks


@contextmanager
def started(folder, *arguments, policies=POLICIES, model=demo.MODEL, flags=FLAGS, **environment):
    """A process that has been started, and may not be up yet. It can import what is in its folder."""
    (folder / "policies.yaml").write_text(policies, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "GUARDRAIL_POLICIES": "policies.yaml",
        "GUARDRAIL_REVIEW_QUEUE": str(folder / "queue.sqlite"),
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        **environment,
    }
    command = [
        sys.executable,
        "-m",
        "guardrail_vllm",
        "serve",
        model,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    fixed = ["--served-model-name", "demo", "--dtype", "float32", "--max-num-seqs", "64", *flags, *arguments]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, *fixed], cwd=folder, env={**os.environ, **ENVIRONMENT, **own}, stdout=log, stderr=log
        )
    try:
        yield Served(folder, process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def serving():
    """Starts a server: `serving(folder, *flags, policies=...)`."""
    return started


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that leave it as it was."""
    with started(tmp_path_factory.mktemp("served")) as server:
        server.wait()
        yield server
