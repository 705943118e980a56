"""The command line with `--engine vllm`: a real process, which starts vLLM's own."""

import json
import os
import subprocess
import sys

from world import POLICIES


def run(*arguments, **environment):
    code = "from guardrail.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | environment,
    )


def test_check_decides_with_vllm_as_with_transformers(tmp_path):
    file = tmp_path / "policies.yaml"
    file.write_text(json.dumps(POLICIES), encoding="utf-8")
    asked = [
        "check",
        "--json",
        "--policies",
        str(file),
        "What is the capital of France?",
        "I will hurt them.",
    ]
    options = {"GUARDRAIL_VLLM": json.dumps({"kv_cache_memory_bytes": 1 << 28})}
    ours = run(*asked, "--engine", "vllm", "--dtype", "float32", **options)
    theirs = run(*asked, "--engine", "transformers-hooks", "--dtype", "float32")
    assert (ours.returncode, theirs.returncode) == (1, 1), ours.stderr
    for one, other in zip(ours.stdout.splitlines(), theirs.stdout.splitlines(), strict=True):
        assert json.loads(one)["action"] == json.loads(other)["action"]
        assert json.loads(one)["status"] == "evaluated"


def test_settings_that_are_no_json_are_an_error_in_words(tmp_path):
    file = tmp_path / "policies.yaml"
    file.write_text(json.dumps(POLICIES), encoding="utf-8")
    found = run("check", "--engine", "vllm", "--policies", str(file), "Hi", GUARDRAIL_VLLM="{")
    assert found.returncode == 2
    assert "GUARDRAIL_VLLM is not JSON" in found.stderr
