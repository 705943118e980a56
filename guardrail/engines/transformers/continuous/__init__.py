"""The engine that batches the requests of many callers, on top of transformers' continuous batching."""
