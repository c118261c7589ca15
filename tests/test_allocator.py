"""Freed memory is kept for the next frame."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from tfcseg.machine import keep_freed_memory
if {keeps}:
    assert keep_freed_memory()
def faults(size=50 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


HEAPS = """
import threading
import numpy as np
import tfcseg.machine
assert tfcseg.machine.keep_freed_memory()
def peak():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, turn = peak(), threading.Barrier(2)
def allocate():
    np.ones(40 << 20, np.uint8)
    turn.wait()
    forever.wait()
forever = threading.Event()
threads = [threading.Thread(target=allocate, daemon=True) for _ in range(4)]
for thread in threads:  # all are alive together, and take their memory one after the other
    thread.start()
    turn.wait()
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="concerns glibc")
def test_threads_share_one_heap():
    assert 40 <= int(subprocess.check_output([sys.executable, "-c", HEAPS], text=True)) < 80


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="concerns glibc")
def test_a_large_array_costs_page_faults_once():
    given_back, kept = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(keeps=keeps)])) for keeps in (False, True)
    )
    assert kept <= 10 < 20 < given_back
