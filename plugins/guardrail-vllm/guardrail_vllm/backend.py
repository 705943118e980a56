"""vLLM's engine on an event loop of its own, with the plans that its workers know.

If vLLM dies, the requests under way fail, and the next one starts it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from guardrail.errors import EvaluationError, ModelError, outline
from guardrail.policy.plan import Plan
from guardrail_vllm.model import VllmModel, settle
from guardrail_vllm.plans import packed
from guardrail_vllm.verdicts import Verdicts, host
from guardrail_vllm.worker.checks import check

T = TypeVar("T")
RPC_S = 120.0
"""How long the workers may take to answer."""
DEAD = "vLLM's engine has died, and this request with it"


class Backend:
    """Runs vLLM from the first plan on. Raises ModelError, with the reason, for what cannot be guarded.

    Before that it has the configuration alone: policies that do not fit are refused before a model is loaded.
    """

    def __init__(self, model: VllmModel) -> None:
        settle()
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guardrail-vllm", daemon=True)
        self._thread.start()
        self._starting = threading.Lock()
        self._names: dict[int, tuple[weakref.ref[Plan], str]] = {}
        self._sent: dict[str, bytes] = {}
        self.llm: Any = None
        try:
            self.config = self._configured()
        except BaseException:
            self._end_loop()
            raise

    def _configured(self) -> Any:
        arguments = self._model.engine_arguments()
        try:
            config = arguments.create_engine_config()
        except Exception as error:
            raise ModelError(f"vLLM refuses {self._model.name}: {error}") from error
        check(config)
        return config

    def _start(self) -> None:
        self.llm, self.verdicts = self.wait(self._started(), None)

    async def _started(self) -> tuple[Any, Verdicts]:
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.executor import Executor

        try:
            llm = AsyncLLM(self.config, Executor.get_class(self.config), log_stats=False, log_requests=False)
        except Exception as error:
            raise ModelError(f"vLLM cannot start {self._model.name}: {error}") from error
        return llm, Verdicts(host(self.config))

    @property
    def dead(self) -> bool:
        """Whether vLLM has died."""
        return self.llm is not None and bool(self.llm.errored)

    def revive(self) -> None:
        """Start vLLM again if it has died, with the plans that it knew. Raises EvaluationError."""
        with self._starting:
            if not self.dead:
                return
            try:
                self.wait(self._shut_down())
                self._start()
                for name, data in self._sent.items():
                    self._tell(name, data)
            except Exception as error:
                raise EvaluationError(
                    f"vLLM's engine has died, and cannot start again: {outline(error)}"
                ) from error

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = RPC_S) -> T:
        """The result of work on the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None] | Any:
        """Begin some work on the loop, from another thread; the result has a `cancel` for any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def generate(self, ids: tuple[int, ...], parameters: Any, key: str) -> AsyncGenerator[Any]:
        """vLLM's outputs for a prompt. On the loop."""
        return self.llm.generate({"prompt_token_ids": list(ids)}, parameters, request_id=key)

    # --- plans ----------------------------------------------------------------------------------------

    def know(self, plan: Plan) -> str:
        """The name of a plan, which all workers know from now on."""
        found = self._names.get(id(plan))
        if found is not None and found[0]() is plan:
            return found[1]
        with self._starting:
            if self.llm is None:
                self._start()
        data = packed(plan)
        name = hashlib.sha256(data).hexdigest()[:32]
        if name not in self._sent:
            self._tell(name, data)
            self._sent[name] = data
        self._names[id(plan)] = weakref.ref(plan), name
        return name

    def _tell(self, name: str, data: bytes) -> None:
        self.wait(self.llm.collective_rpc("guardrail_plan", RPC_S, (name, data)))

    def tidy(self) -> None:
        """Forget plans that nobody holds any more. Requests under way keep theirs."""
        self._names = {key: found for key, found in self._names.items() if found[0]() is not None}
        names = {name for _, name in self._names.values()}
        self._sent = {name: data for name, data in self._sent.items() if name in names}
        self.wait(self.llm.collective_rpc("guardrail_keep", RPC_S, (sorted(names),)))

    def counts(self) -> dict[str, int]:
        """What the first worker knows: requests, plans, and passes that it guarded."""
        return self.wait(self.llm.collective_rpc("guardrail_counts", RPC_S))[0]

    # --- the end --------------------------------------------------------------------------------------

    async def _shut_down(self) -> None:
        if self.llm is not None:
            self.llm.shutdown()
            self.verdicts.close()

    def close(self) -> None:
        """End vLLM and its processes."""
        if self._thread.is_alive():
            self.wait(self._shut_down())
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
