"""Multiple-choice accuracy with and without personas: whether there is an effect to explain at all."""
