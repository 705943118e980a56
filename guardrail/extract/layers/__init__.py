"""Measures candidate layers of a trait vector and chooses one."""
