"""Parameter symmetries of probabilistic models and neural networks, in JAX."""
