"""Oracles that share no code with the library, nor with XLA."""
