"""Trait vectors: what steers and what detects, for every trait and layer."""
