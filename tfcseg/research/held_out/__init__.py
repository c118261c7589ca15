"""Measure models on held-out data: accuracy on labelled stills, stability on unlabelled clips."""
