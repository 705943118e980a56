"""Measures the cost of the guard, in pairs with a copy of the model that was never wrapped."""
