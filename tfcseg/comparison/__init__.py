"""Compare modes of a network with each other and with another program: speed, stability, scores, pictures."""

from tfcseg.comparison.dataset import compare_dataset
from tfcseg.comparison.plan import Plan
from tfcseg.comparison.result import Comparison, comparison_json, default_output
from tfcseg.comparison.video import compare_video

__all__ = ["Comparison", "Plan", "compare_dataset", "compare_video", "comparison_json", "default_output"]
