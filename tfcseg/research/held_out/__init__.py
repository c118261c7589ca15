"""Measure models on held-out data: accuracy on labelled stills, stability on unlabelled clips."""

from tfcseg.research.held_out.clips import ClipsResult, compare_clips
from tfcseg.research.held_out.stills import StillsResult, compare_stills

__all__ = ["ClipsResult", "StillsResult", "compare_clips", "compare_stills"]
