"""Weights files: format, card, shipped models, published checkpoints."""
