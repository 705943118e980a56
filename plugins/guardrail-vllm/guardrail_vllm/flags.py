"""What vLLM has to be started with, so that its workers are guarded."""

EXTENSION = "guardrail_vllm.worker.GuardExtension"
LOGITS = "guardrail_vllm.worker:GuardLogits"
SCHEDULER = "guardrail_vllm.scheduler.guard_scheduler"
"""Without it, requests that policies may steer must share nothing in the prefix cache."""
