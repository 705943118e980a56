"""Measures how well a vector file detects and steers: metrics with intervals, nulls, references, slices.

Except for `run`, `builtin`, `capability` and `sweep`, every module is pure maths on arrays, without a model.
"""
