"""Cores that may be used, and threads by default."""

import os
import subprocess
import sys

import pytest

from tfcseg.machine import MAX_THREADS, available_cores, set_default_threads


@pytest.mark.parametrize(
    ("quota", "wanted"), [("max 100000", 64), ("200000 100000", 2), ("250000 100000", 3), ("1000 100000", 1), ("", 64)]
)
def test_a_container_may_use_its_share(quota, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores(tmp_path / "cpu.max") == wanted
    assert available_cores(tmp_path / "missing") == 64


def test_threads_are_as_many_as_cores_up_to_a_limit_and_the_users_choice_stays(monkeypatch):
    for cores, wanted in (
        (2, {"OMP_NUM_THREADS": "2", "OPENCV_FOR_THREADS_NUM": "1"}),
        (64, {"OMP_NUM_THREADS": str(MAX_THREADS)}),
    ):
        monkeypatch.setattr("tfcseg.machine.available_cores", lambda cores=cores: cores)
        environment = {}
        set_default_threads(environment)
        assert environment == wanted
    given = {"OMP_NUM_THREADS": "3", "OPENCV_FOR_THREADS_NUM": "2"}
    monkeypatch.setattr("tfcseg.machine.available_cores", lambda: 2)
    set_default_threads(given)
    assert given == {"OMP_NUM_THREADS": "3", "OPENCV_FOR_THREADS_NUM": "2"}


def test_opencv_obeys():
    """It reads the variable when it is loaded, so another process has to say so."""
    program = "import cv2; print(cv2.getNumThreads())"
    environment = {**os.environ, "OPENCV_FOR_THREADS_NUM": "1"}
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1"


def test_garbage_is_collected_rarely_and_not_at_the_end():
    program = (
        "import atexit, gc; from tfcseg.machine import collect_rarely; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 0)); "  # functions are called in reverse order
        "collect_rarely(); print(gc.get_threshold()[0])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["10000", "True"]
