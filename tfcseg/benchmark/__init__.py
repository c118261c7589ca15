"""How fast it is: against SegFormer as it is usually run, against ourselves, and against what the machine can do."""

from tfcseg.benchmark.measure import measure
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.result import Benchmark

__all__ = [
    "PARTS",
    "Benchmark",
    "Request",
    "measure",
]
