"""Which layers, heads and positions of a model carry a persona or a trait."""
