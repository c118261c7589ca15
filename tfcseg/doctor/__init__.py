"""Check that everything tfcseg needs works on this machine, and say how to fix what does not."""

from tfcseg.doctor.examination import CHECKS, examine
from tfcseg.doctor.findings import Diagnosis, Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "examine"]
