"""The engine for Hugging Face transformers models. The only package that imports nnsight."""
