"""Score labels against ground truth: VSPW folders, metrics, label maps, prediction sources."""
