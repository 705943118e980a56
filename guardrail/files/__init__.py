"""Reads and writes YAML, JSON Lines and SQLite files, and reports the problems found in them."""
