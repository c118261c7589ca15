"""Settings for all tests."""

import os

# Before torch is imported, and for the processes that tests start: its threads wait for each other, and on a machine
# that is busy (as it is with several test runs at once) two of them are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture
def torch_threads():
    """Function that sets how many threads torch uses, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Reports that a parallel run can send: names of files may be no UTF-8, and what was logged of them is kept escaped."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report
