"""Choosing the layer of a trait vector."""
