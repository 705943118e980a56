"""What the guard costs, measured in pairs against a copy of the model that was never wrapped."""
