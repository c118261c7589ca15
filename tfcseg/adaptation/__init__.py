"""Adapt TFC to a network and a user's videos, without labels: evidence curve and sparse attention."""
