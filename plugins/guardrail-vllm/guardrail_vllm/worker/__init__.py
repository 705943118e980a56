"""What runs inside vLLM's workers: reads, decides, steers and stops. It knows plans, and no `Guard`."""

from guardrail_vllm.worker.extension import GuardExtension as GuardExtension
from guardrail_vllm.worker.logits import GuardLogits as GuardLogits
