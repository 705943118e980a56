"""What a model would say after each of its layers, and how early it settles: logit lens and tuned lens."""
