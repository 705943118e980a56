"""Reading and writing files: YAML, JSON Lines, SQLite, and the problems found in them."""
