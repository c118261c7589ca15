"""Backbones: an image in, features of four levels out."""
