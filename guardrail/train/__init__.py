"""Before and during training: what data would change a model's character, and how to keep it."""
