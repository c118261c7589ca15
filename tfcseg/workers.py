"""Work shared by several processes, of this machine or of many, on a Ray cluster (extra ``ray``)."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from tfcseg.errors import TfcsegError, UsageError
from tfcseg.files import errors_as
from tfcseg.machine import available_cores, keep_freed_memory
from tfcseg.options import Option

_Job = TypeVar("_Job")

LOCAL = "local"
_MOST_DEATHS = 3  # workers that die over one job, before it is given up: too little memory, most of the time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Processes that share the work."""

    ray: Annotated[
        str | None,
        Option(
            "Share the work among the workers of a Ray cluster: local starts one on this machine, "
            "HOST:PORT is one that runs. All of its machines read and write the same paths.",
            default_text="this process alone",
        ),
    ] = None
    worker_cores: Annotated[
        int, Option("Cores of each Ray worker; with GPUs there is one worker for each of them.", low=1, high=1024)
    ] = 4


class _Worker:
    """One process of the cluster; ``make`` is called once and returns the function that does the jobs."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        self._make, self._folder = make, folder
        self._do: Callable[[Any], Any] | None = None

    def do(self, job: Any) -> Any:
        try:
            if self._do is None:
                keep_freed_memory()
                cannot = f"{os.uname().nodename} cannot enter {self._folder!r}"
                with errors_as(TfcsegError, cannot, "; all machines need the same folders"):
                    os.chdir(self._folder)  # paths may be relative
                self._do = self._make()
            return self._do(job)
        except TfcsegError as error:
            return error


class Workers(Generic[_Job]):
    """The workers of a cluster, all of which do the same kinds of job."""

    def __init__(self, start: Callable[[], Any], count: int) -> None:
        self._start = start
        self._actors = [start() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._actors)

    def each(
        self,
        jobs: Iterable[_Job],
        again: Callable[[_Job], _Job] = lambda job: job,
        *,
        queued: int = 1,
        may_begin: Callable[[int], bool] = lambda number: True,
    ) -> Iterator[tuple[int, Any]]:
        """Number of each job and its result, or a TfcsegError in its place, as soon as it is done.

        Each worker has up to ``queued`` jobs at a time, in order; a job waits until ``may_begin`` accepts its number.
        If a worker dies, another one replaces it and does its jobs as changed by ``again``.
        """
        import ray

        fresh = ((number, job, 0) for number, job in enumerate(jobs))
        waiting = deque(islice(fresh, 1))  # and those that were lost, with how many workers died over each
        free = deque([*range(len(self._actors))] * queued)
        running: dict[Any, tuple[int, _Job, int, int, Any]] = {}
        while True:
            while free and waiting and (waiting[0][2] or may_begin(waiting[0][0])):
                number, job, deaths = waiting.popleft()
                waiting.extend(islice(fresh, not waiting))
                place = free.popleft()
                actor = self._actors[place]
                running[actor.do.remote(job)] = number, job, deaths, place, actor
            if not running:
                return
            (ready,), _ = ray.wait(list(running), num_returns=1)
            number, job, deaths, place, actor = running.pop(ready)
            free.append(place)
            try:
                answer = ray.get(ready)
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
                logger.info("a worker died: %s", " ".join(str(error).split()))
                self._replace(place, actor)
                if deaths + 1 < _MOST_DEATHS:
                    waiting.appendleft((number, again(job), deaths + 1))
                    continue
                answer = TfcsegError(f"{_MOST_DEATHS} workers died over it; they may lack memory")
            yield number, answer

    def in_order(self, jobs: Iterable[_Job]) -> Generator[Any, None, None]:
        """Results of ``jobs`` in their order, done ahead while they are used; raises the first error."""
        waiting: dict[int, Any] = {}
        wanted = 0

        def may_begin(number: int) -> bool:
            return number < wanted + 2 * len(self)

        for number, result in self.each(jobs, queued=2, may_begin=may_begin):
            waiting[number] = result
            while wanted in waiting:
                found = waiting.pop(wanted)
                if isinstance(found, TfcsegError):
                    raise found
                wanted += 1
                yield found

    def _replace(self, place: int, actor: Any) -> None:
        """Start another worker in the place of ``actor``, and end that one, so that it writes nothing more."""
        import ray

        if self._actors[place] is actor:
            ray.kill(actor)
            self._actors[place] = self._start()


def work_through(
    options: WorkerOptions, make: Callable[[], Callable[[_Job], Any]], jobs: Iterable[_Job], *, uses_gpu: bool
) -> Generator[Any, None, None]:
    """Results of ``jobs`` in their order, from this process or the workers of a cluster; raises the first error.
    ``make`` returns the function that does a job. It is called once in each process."""
    if options.ray is None:
        yield from map(make(), jobs)
        return
    with ray_workers(options, make, uses_gpu=uses_gpu) as crew:
        yield from crew.in_order(jobs)


@contextlib.contextmanager
def ray_workers(
    options: WorkerOptions, make: Callable[[], Callable[[_Job], Any]], *, uses_gpu: bool
) -> Iterator[Workers[_Job]]:
    """Start workers on a cluster, one per GPU or per ``worker_cores`` cores; they end with the block.

    ``make`` is called in each, and returns the function that does its jobs. UsageError if Ray is not installed, the
    cluster is not there, or is too small for a worker.
    """
    ray, is_ours = _connected(options)
    try:
        count, needs = _shares(ray.nodes(), options, uses_gpu=uses_gpu)
        actor = ray.remote(_Worker).options(**needs)
        start = partial(actor.remote, make, str(Path.cwd()))
        logger.info("%d workers, each with %s", count, needs)
        with contextlib.redirect_stdout(io.StringIO()):  # Ray prints long reports of dead workers
            yield Workers(start, count)
    finally:
        if is_ours:
            ray.shutdown()


def _connected(options: WorkerOptions) -> tuple[Any, bool]:
    """Ray's module, connected to a cluster, and whether this call connected it (or started the cluster)."""
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray; install it with: pip install 'tfcseg[ray]'") from None
    if ray.is_initialized():
        return ray, False
    init = partial(ray.init, log_to_driver=False, logging_level=logging.CRITICAL)
    is_main = threading.current_thread() is threading.main_thread()
    on_term = signal.getsignal(signal.SIGTERM)  # Ray takes it
    try:
        if options.ray == LOCAL:
            os.environ.setdefault("RAY_worker_niceness", "0")  # they are the program, as they would be without Ray
            init(address="local", num_cpus=available_cores(), include_dashboard=False)
        else:
            host, _, port = (options.ray or "").rpartition(":")
            if port.isdigit() and "/" not in host:  # if nobody answers there, Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            init(address=options.ray)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"no Ray cluster at {options.ray!r} ({reason[:200]}); give HOST:PORT, auto or local") from None
    finally:
        if is_main and on_term is not None:
            signal.signal(signal.SIGTERM, on_term)
    return ray, True


def _shares(
    nodes: Sequence[Mapping[str, Any]], options: WorkerOptions, *, uses_gpu: bool
) -> tuple[int, dict[str, Any]]:
    """Number of workers that fit on the machines of a cluster, and the resources of each."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [(int(each["GPU"]), int(each.get("CPU", 0))) for each in machines if each.get("GPU", 0) >= 1]
    if uses_gpu and with_gpu:
        cores = min(max(1, min(options.worker_cores, cpus // gpus)) for gpus, cpus in with_gpu)
        return sum(gpus for gpus, _ in with_gpu), {"num_gpus": 1, "num_cpus": cores}
    most = max((int(each.get("CPU", 0)) for each in machines), default=0)
    if not most:
        raise UsageError("the Ray cluster has no cores")
    cores = min(options.worker_cores, most)
    return sum(int(each.get("CPU", 0)) // cores for each in machines), {"num_cpus": cores}
