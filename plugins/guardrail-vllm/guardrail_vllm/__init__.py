"""vLLM under guardrail. Importing this imports no vLLM: what needs it says which package is missing."""
