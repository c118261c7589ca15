"""The paper's ablation table, with any tfcseg model and VSPW folder."""
