"""Settings for all tests."""

import os

# Before torch is imported, and for the processes that tests start: its threads wait for each other, and on a machine
# that is busy (as it is with several test runs at once) two of them are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
