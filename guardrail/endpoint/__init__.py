"""A client of OpenAI-compatible chat endpoints, and what every call of another service needs."""
