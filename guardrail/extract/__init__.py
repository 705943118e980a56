"""Extracts trait vectors and probes from a model, starting from a trait definition."""
