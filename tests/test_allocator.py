"""Freed memory is kept for the next frame."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from tfcseg.allocator import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()
def faults(size=50 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="concerns glibc")
def test_a_large_array_costs_page_faults_once():
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(keeps=keeps)])) for keeps in (False, True)
    )
    assert kept <= 10 < 20 < given_back  # pages may be large ones
