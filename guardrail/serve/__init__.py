"""The guard as a server: an OpenAI-compatible API, and the contracts by which gateways call a guard."""
