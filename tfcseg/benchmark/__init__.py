"""How fast it is: against SegFormer as it is usually run, against ourselves, and against what the machine can do."""

from tfcseg.benchmark.measure import measure
from tfcseg.benchmark.request import PARTS, Request
from tfcseg.benchmark.result import Benchmark, benchmark_json, write_benchmark
from tfcseg.benchmark.scaling import Scaling, measure_scaling, scaling_json

__all__ = [
    "PARTS",
    "Benchmark",
    "Request",
    "Scaling",
    "benchmark_json",
    "measure",
    "measure_scaling",
    "scaling_json",
    "write_benchmark",
]
