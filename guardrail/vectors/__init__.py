"""Trait vectors: a steering vector and a probe for every trait and layer, with file formats."""
