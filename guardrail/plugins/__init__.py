"""Plugins: the hooks, what plugins provide, and the manager that loads them."""
