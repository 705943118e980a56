"""Puts the guard into vLLM's model runner: around its forward pass, behind its layers, before its sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from guardrail_vllm.worker.asked import NAME, SentPlans
from guardrail_vllm.worker.blocks import decoder_layers
from guardrail_vllm.worker.checks import check
from guardrail_vllm.worker.compiled import look, looking, split_at_looks
from guardrail_vllm.worker.guard import Entry, WorkerGuard
from guardrail_vllm.worker.reports import Reports, RoutedReports, Silent, SocketReports
from guardrail_vllm.worker.rows import layout

GUARDS: dict[str, WorkerGuard] = {}
"""The guards of this process, by vLLM's `instance_id`."""


def prepare(worker: Any, runner: Any) -> None:
    """Have the guard put in as soon as the model is loaded. Raises ModelError for what cannot be guarded."""
    check(worker.vllm_config)
    split_at_looks(worker.vllm_config.compilation_config)
    load = runner.load_model

    def load_model(*arguments: Any, **options: Any) -> None:
        load(*arguments, **options)
        install(worker, runner)

    runner.load_model = load_model


def install(worker: Any, runner: Any) -> WorkerGuard:
    """Put the guard into a runner whose model is loaded. Raises ModelError if its layers are not found."""
    config, model = worker.vllm_config, runner.get_model()
    ends = end_tokens(config)
    guard = WorkerGuard(*_asked(worker, config), partial(_entry, runner, ends[0]), ends)
    GUARDS[config.instance_id] = guard
    count = config.model_config.get_total_num_hidden_layers()
    hook = look if config.compilation_config.mode else partial(_look, guard)
    for number, layer in enumerate(decoder_layers(model, count), 1):
        layer.register_forward_hook(partial(hook, number))
    runner._model_forward = _around(guard, runner, runner._model_forward)
    model.compute_logits = _stopping(guard, model.compute_logits)
    removed = runner._on_request_state_removed

    def forget(name: str, state: Any) -> None:
        guard.forget(name)
        removed(name, state)

    runner._on_request_state_removed = forget
    return guard


def _asked(worker: Any, config: Any) -> tuple[SentPlans, Reports]:
    told: Mapping[str, Any] = (config.additional_config or {}).get(NAME) or {}
    # one of several workers that share a model speaks for all
    if not worker.is_driver_worker:
        return SentPlans(), Silent()
    # a server has several guards, each of which names its address with its requests
    return SentPlans(), SocketReports(told["reports"]) if "reports" in told else RoutedReports()


def _look(guard: WorkerGuard, number: int, module: object, arguments: object, output: object) -> None:
    guard.look(number, output)


def _around(guard: WorkerGuard, runner: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        guard.begin(layout(runner))
        with looking(guard):
            found = forward(*arguments, **options)
        guard.settle()
        return found

    return run


def _stopping(guard: WorkerGuard, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Log probabilities are taken before logits processors run: they must not show a stopped reply either."""

    def run(*arguments: Any, **options: Any) -> Any:
        return guard.stop(compute(*arguments, **options))

    return run


def _entry(runner: Any, end: int, name: str) -> Entry:
    state = runner.requests[name]
    parameters = state.sampling_params
    given = parameters.eos_token_id
    stops = sorted(parameters.stop_token_ids or ())
    return Entry(
        length=state.num_prompt_tokens,
        end=given if given is not None else stops[0] if stops else end,
        extra=parameters.extra_args,
        lora=None if state.lora_request is None else state.lora_request.lora_name,
    )


def end_tokens(config: Any) -> list[int]:
    """The tokens that end a reply, by the model's own generation config and its configuration."""
    model = config.model_config
    given = [
        model.try_get_generation_config().get("eos_token_id"),
        getattr(model.hf_text_config, "eos_token_id", None),
    ]
    flat = [one for item in given for one in (item if isinstance(item, list | tuple) else [item])]
    found = list(dict.fromkeys(int(one) for one in flat if one is not None))
    return found or [0]
