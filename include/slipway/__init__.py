"""Slipway: a self-hosted delivery stack for machine-learning models."""

__version__ = "0.1.0"
