"""nnsight's worker for vLLM on a CPU: its own is for GPUs only. Named by its address, as vLLM wants it."""

from __future__ import annotations

from nnsight.modeling.vllm.model_runners.GPUModelRunner import NNsightGPUModelRunner
from nnsight.modeling.vllm.workers.GPUWorker import NNsightGPUWorker
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

ADDRESS = f"{__name__}.NNsightCPUWorker"


class NNsightCPUModelRunner(NNsightGPUModelRunner, CPUModelRunner):
    """Runs what was traced, on a CPU."""


class NNsightCPUWorker(NNsightGPUWorker, CPUWorker):
    """vLLM's worker for CPUs, whose runner runs what was traced."""

    def init_device(self) -> None:
        """As nnsight's worker does it, with the runner of CPUs."""
        CPUWorker.init_device(self)
        self.model_runner.__class__ = NNsightCPUModelRunner
