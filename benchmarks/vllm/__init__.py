"""The engine `vllm` against transformers and against vLLM without a guard. See benchmarks/vllm/README.md."""
