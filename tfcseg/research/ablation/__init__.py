"""The paper's ablation table, with any of our models and on any VSPW folder."""
