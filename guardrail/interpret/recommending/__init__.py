"""From an audit of a model to a policy: which layer to watch for each trait, and what carries it."""
