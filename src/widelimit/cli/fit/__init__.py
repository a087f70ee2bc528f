"""Fitting a table: cross-validation beside baselines, a model file, a report."""
