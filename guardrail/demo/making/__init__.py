"""How the demo model is made: training, vectors, evaluation and model card. Users never import it."""
