"""Reproduce the paper's tables, and measure and publish models."""
