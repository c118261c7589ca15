"""A process that has everything loaded and forks one child per run: a fresh one would spend seconds on imports.

Each line on stdin is a JSON list: arguments of ``tfcseg.run``, or those of the command and a file for its stderr. The
child's number is the answer, and its exit status (as from ``waitpid``) the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

PART_FRAMES = 12
"""Length of the parts in these runs, so that short clips have many."""

SAFE_EVERY_S = 0.05
"""Time between two safe points in these runs, so that many lie within a part."""


def serve():
    """Answer requests until stdin ends."""
    import cv2
    import torch

    # Without threads of these libraries a forked child is as good as a fresh process.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.helpers.tiny_model import build_tiny_model
    from tfcseg import cli  # noqa: F401  # loaded once for all children
    from tfcseg.media import writer as video_writer  # loaded once for all children
    from tfcseg.runs import pipeline, results  # noqa: F401  # loaded once for all children

    video_writer.PART_FRAMES = PART_FRAMES
    results.SAFE_EVERY_S = SAFE_EVERY_S
    model = build_tiny_model()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            kind, *arguments = json.loads(line)
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _call(*arguments) if kind == "call" else _run(model, *arguments)
            finally:
                os._exit(1)  # whatever happened: it must not serve
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


def _run(model, source, output, results, resume):
    import tfcseg

    tfcseg.run(source, output, model, results=tfcseg.ResultOptions(**results), resume=resume)
    os._exit(0)


def _call(arguments, stderr):
    from tfcseg.__main__ import main

    os.dup2(os.open(stderr, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
    sys.argv = ["tfcseg", *arguments]
    try:
        main()
    except SystemExit as leaving:
        os._exit(leaving.code or 0)


class RunServer:
    """Client of ``serve``."""

    def __init__(self):
        from tests.helpers.command_line import interruptible

        command = [sys.executable, str(Path(__file__))]
        with interruptible():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, source, output, results, *, resume):
        """Start a run; returns the number of its process."""
        return self._ask(["run", str(source), str(output), results, resume])

    def call(self, *arguments, stderr):
        """Start ``tfcseg arguments…``, forked with everything loaded."""
        return self._ask(["call", [*map(str, arguments)], str(stderr)])

    def wait(self):
        """Exit status of the run: 0, or that of ``waitpid``."""
        return int(self._process.stdout.readline())

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
