"""Whether everything that tfcseg needs is there and works on this machine, and what to do where it does not."""

from tfcseg.doctor.examination import CHECKS, examine
from tfcseg.doctor.findings import Diagnosis, Finding

__all__ = ["CHECKS", "Diagnosis", "Finding", "examine"]
