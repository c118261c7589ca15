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
def pytest_report_to_serializable():
    """What a process of a parallel run sends. Names of files may be no UTF-8, which alone can be sent."""
    return _encodable((yield))


def _encodable(data):
    if isinstance(data, str):
        return data.encode(errors="backslashreplace").decode()
    if isinstance(data, dict):
        return {_encodable(key): _encodable(value) for key, value in data.items()}
    return type(data)(map(_encodable, data)) if isinstance(data, list | tuple) else data
