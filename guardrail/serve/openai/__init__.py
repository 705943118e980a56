"""The OpenAI API in front of the guarded model."""
