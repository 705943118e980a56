"""The guard inside `vllm serve`: vLLM's own API, with a policy file in front of its model.

`--middleware guardrail_vllm.serving.GuardMiddleware`, `--worker-extension-cls` and `--logits-processors` put
it there; GUARDRAIL_POLICIES names the policies. See the package's README.
"""

from guardrail_vllm.serving.middleware import GuardMiddleware as GuardMiddleware
