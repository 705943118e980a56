"""Doors for other models' traffic: this server's model reads a prompt before another model answers it."""
