"""Compare modes of a network with each other and with another program: speed, stability, scores, pictures."""

DEFAULT_MODES = ("image", "reuse", "tfc-paper", "tfc")
"""``tfc-paper`` is mode ``tfc`` with the paper's correlation; ``tfc`` alone uses the plan's or the model's."""
