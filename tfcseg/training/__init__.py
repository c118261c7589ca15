"""Train models: distillation from teachers on unlabelled media, and the paper's recipe on VSPW."""
