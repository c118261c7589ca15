"""Scoring against ground truth: VSPW folders, metrics, label maps, prediction sources."""
