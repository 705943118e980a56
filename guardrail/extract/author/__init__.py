"""Writes a trait definition from one sentence, with the help of a model."""
