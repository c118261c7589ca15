"""Measuring on data that was held out: labelled stills for the labels, unlabelled clips for their steadiness."""

from tfcseg.research.held_out.clips import ClipsResult, compare_clips
from tfcseg.research.held_out.stills import StillsResult, compare_stills

__all__ = ["ClipsResult", "StillsResult", "compare_clips", "compare_stills"]
