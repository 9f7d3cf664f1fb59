"""Distributed hyperparameter search and scaling for Bayes by Hypernet and its baselines."""

__version__ = "0.1.0"
