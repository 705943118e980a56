"""How well a vector file detects and steers, measured: metrics with intervals, nulls, references, slices.

Every module but `run`, `builtin`, `capability` and `sweep` is pure maths on arrays and knows no model.
"""
