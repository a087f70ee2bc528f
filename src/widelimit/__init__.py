"""Infinite-width limits of neural networks written in JAX."""
