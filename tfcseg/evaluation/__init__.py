"""Score labels against ground truth: VSPW folders, sources of predictions, scores."""
