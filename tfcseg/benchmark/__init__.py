"""Measure speed: against SegFormer as it is usually run, against our image mode, and against the machine's limits."""

from tfcseg.benchmark.measure import measure
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.result import Benchmark

__all__ = [
    "PARTS",
    "Benchmark",
    "Request",
    "measure",
]
