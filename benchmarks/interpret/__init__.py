"""Claims of papers on interpretability, tried on three models."""
