"""Readings of a graph at infinite width: second moments (NNGP) and tangent kernels (NTK)."""
