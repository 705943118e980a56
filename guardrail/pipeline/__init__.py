"""One request, from messages to an audited reply."""
