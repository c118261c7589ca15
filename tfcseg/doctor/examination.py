"""Run all checks in order. A check that crashes does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from tfcseg.doctor.findings import Diagnosis, Finding
from tfcseg.doctor.hardware import check_gpu, check_processor
from tfcseg.doctor.installation import check_extras, check_ffmpeg, check_folder, check_libraries, check_weights
from tfcseg.doctor.self_test import check_by_running

logger = logging.getLogger(__name__)

Check: TypeAlias = Callable[[], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "libraries": check_libraries,
    "extras": check_extras,
    "ffmpeg": check_ffmpeg,
    "processor": check_processor,
    "GPU": check_gpu,
    "weights": check_weights,
    "folder": check_folder,
    "self-test": check_by_running,
}
"""Names of the checks, under which a crashed check is reported."""


def examine(on_check: Callable[[str], None] = lambda name: None) -> Diagnosis:
    """Run all checks, which takes a few seconds. ``on_check`` is called with the name of the next one."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        on_check(name)
        findings.extend(_run(name, check))
    return Diagnosis(tuple(findings))


def _run(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever is wrong with this machine, the other checks are still useful
        logger.info("the check of %s failed", name, exc_info=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "broken", f"the check failed ({reason})", "mend what is broken above, then look again")
