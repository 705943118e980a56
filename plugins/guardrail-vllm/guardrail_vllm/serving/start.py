"""Opens the guard when vLLM's API server starts: its flags are checked, its policies compiled and sent."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ConfigError
from guardrail.plugins.registry import names_in_environment
from guardrail_vllm.fingerprint import fingerprint
from guardrail_vllm.flags import EXTENSION, LOGITS, SCHEDULER
from guardrail_vllm.serving.captures import capture
from guardrail_vllm.serving.door import Door
from guardrail_vllm.serving.guard import ServedEngine, ServedGuard
from guardrail_vllm.verdicts import Verdicts, host
from guardrail_vllm.versions import require_vllm
from guardrail_vllm.worker.checks import check

log = logging.getLogger("guardrail")

POLICIES = "GUARDRAIL_POLICIES"
WATCH_S = 2.0


async def opened(state: Any) -> Door:
    """The door of vLLM's application with this state. Raises ConfigError: then nothing may be served."""
    _log()
    require_vllm()
    config, client = state.vllm_config, state.engine_client
    check_flags(config)
    check(config)
    engine = _engine(state)
    verdicts = Verdicts(host(config))
    plugins = names_in_environment()
    guard = await asyncio.to_thread(ServedGuard.around, engine, policies(os.environ), plugins, WATCH_S)
    door = Door(guard, client.generate, verdicts, config.scheduler_config.scheduler_cls == SCHEDULER)
    client.generate = door.generate
    capture(state.online_renderer)
    log.info("vLLM is guarded; the sha256 of the policies is %s", guard.active.sha256)
    return door


def _log() -> None:
    """Have what the guard says where vLLM's own log is."""
    vllm = logging.getLogger("vllm")
    log.handlers, log.propagate = vllm.handlers, vllm.propagate
    log.setLevel(vllm.level)


def policies(environment: Mapping[str, str]) -> str:
    """The policies that the environment names. Raises ConfigError if it names none."""
    named = environment.get(POLICIES)
    if not named:
        raise ConfigError(
            f"{POLICIES} names no policies: set it to a policy file, a shipped name or pack:NAME"
        )
    return named


def check_flags(config: Any) -> None:
    """Raises ConfigError if a flag is missing without which workers are not guarded."""
    missing: list[str] = []
    if config.parallel_config.worker_extension_cls != EXTENSION:
        missing.append(f"--worker-extension-cls {EXTENSION}")
    if LOGITS not in _names(config.model_config.logits_processors):
        missing.append(f"--logits-processors {LOGITS}")
    if missing:
        raise ConfigError(f"vLLM's workers are not guarded: start it with {' and '.join(missing)}")


def _names(processors: Sequence[Any] | None) -> list[str]:
    return [
        one if isinstance(one, str) else f"{one.__module__}:{one.__qualname__}" for one in processors or ()
    ]


def _engine(state: Any) -> ServedEngine:
    client, arguments = state.engine_client, state.args
    tokenizer = client.get_tokenizer()
    renderer = Renderer(
        tokenizer, state.online_renderer.chat_template, arguments.default_chat_template_kwargs
    )
    found = fingerprint(state.vllm_config, renderer)
    return ServedEngine(client, renderer, found)
