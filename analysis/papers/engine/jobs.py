"""Running jobs: each once, in processes of this machine or on a Ray cluster, each result on disk as soon as it is there."""

from __future__ import annotations

import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import torch
from tqdm import tqdm

from odernn import json_values
from odernn.progress import Progress

from . import records
from .figure import Job, Result, package_versions

Engine = Literal["local", "ray"]

# Retries after a worker dies (out of memory, killed).
RETRIES = 3
# Seconds between two looks of a worker whether the process that started it is still there.
_WATCH, _WATCHMAN = 1.0, "end with the driver"
# Seconds within which a Ray cluster answers a connection.
_PATIENCE = 10.0
# Seconds between two lines of progress in a log.
_EVERY = 5.0
_NO_RAY = "engine 'ray' needs Ray, which is not installed: pip install 'odernn[ray]', or take engine 'local'"


@dataclass(frozen=True)
class Finished:
    """A job that was attempted.

    Args:
        job: which.
        result: what it computed; None if it failed.
        seconds: that it took, when it ran.
        error: why it failed, one line.
        details: the traceback.
    """

    job: Job
    result: Result | None
    seconds: float
    error: str = ""
    details: str = ""


class Cache:
    """Results on disk, a file `<key>.json` for each job: never repeated while settings and code stay the same.

    A file is believed only if its checksum fits and it is about that job. Any other is set aside as `<key>.damaged`, which a line
    on stderr says, and its job runs again; so do files of versions that wrote no checksum, for what they hold cannot be checked.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, job: Job) -> Finished | None:
        """The job's result, if it is there and undamaged."""
        path = self._path(job)
        try:
            record = records.read(path)
            if (record["key"], record["job"]) != (job.key, job.name):
                raise ValueError(f"{path} is about another job")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, IsADirectoryError) as error:
            reason = f"{path} is no result of a job" if isinstance(error, (KeyError, IsADirectoryError)) else error
            aside = path.with_suffix(".damaged")
            with suppress(FileNotFoundError):  # another process was faster
                path.replace(aside)
            tqdm.write(f"{reason}: set aside as {aside.name}, {job} runs again", file=sys.stderr)
            return None
        return Finished(job, record["result"], record["seconds"])

    def put(self, finished: Finished) -> Finished:
        """Keeps a result, or the traceback of a failure beside it; returns what `get` will return.

        Raises:
            TypeError: a result that JSON cannot hold.
        """
        path, job = self._path(finished.job), finished.job
        failure = path.with_suffix(".error")
        if finished.error:
            records.write_text(failure, f"{job}\n{finished.details or finished.error}\n")
            return finished
        record = {
            "key": job.key,
            "job": job.name,
            "settings": job.settings,
            "seconds": finished.seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": versions(),
            "result": finished.result,
        }
        records.write(path, record)
        failure.unlink(missing_ok=True)
        return Finished(job, json_values.decode(json_values.encode(finished.result)), finished.seconds)

    def _path(self, job: Job) -> Path:
        return self.directory / f"{job.key}.json"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **package_versions()}


def run_jobs(
    jobs: Iterable[Job],
    cache: Cache,
    *,
    workers: int | None = None,
    engine: Engine = "local",
    address: str | None = None,
) -> Generator[Finished, None, None]:
    """Every job's result, from the cache or computed now, as they finish; those in the cache first.

    A job runs once, however often it is asked for; the longest (`Job.cost`) start first. What has finished is in the cache, so
    after an interrupt the next call computes only the rest. A job that fails, or whose worker dies RETRIES + 1 times, comes back
    with its error while the others go on; it is tried again in the next call.

    Args:
        jobs: any number, repetitions allowed.
        cache: where results are kept.
        workers: jobs at a time, one core each; by default the cores there are.
        engine: 'local', processes of this machine by joblib; or 'ray', tasks of a Ray cluster.
        address: of a running Ray cluster; None starts a local one. Its machines must have this project installed, or see its
            folder.

    Raises:
        ValueError: an unknown engine or options that do not fit it; when the jobs start, Ray missing or no cluster there.
    """
    if engine not in ("local", "ray"):
        raise ValueError(f"unknown engine {engine!r}: choose local or ray")
    if workers is not None and workers < 1:
        raise ValueError(f"the number of jobs at a time must be at least 1, got {workers}")
    if address is not None and engine != "ray":
        raise ValueError("an address is that of a Ray cluster: it needs engine 'ray'")
    return _run(jobs, cache, workers, engine, address)


def _run(
    jobs: Iterable[Job], cache: Cache, workers: int | None, engine: Engine, address: str | None
) -> Generator[Finished, None, None]:
    unique = {job.key: job for job in jobs}
    reused = [found for job in unique.values() if (found := cache.get(job)) is not None]
    yield from reused
    there = {finished.job.key for finished in reused}
    # Python's sort keeps the order of equals: the figures' own.
    missing = sorted((job for key, job in unique.items() if key not in there), key=lambda job: -job.cost)
    if not missing:
        return
    attempts = (
        _local(missing, workers or joblib.cpu_count())
        if engine == "local"
        else _ray(_connect(workers, address), missing, workers)
    )
    with _Progress(missing, len(reused), workers or joblib.cpu_count()) as progress, closing(attempts):
        for attempt in attempts:
            kept = _keep(cache, attempt)
            progress.advance(kept)
            yield kept


def _keep(cache: Cache, attempt: Finished) -> Finished:
    try:
        return cache.put(attempt)
    except TypeError as error:
        return cache.put(Finished(attempt.job, None, attempt.seconds, f"its result cannot be kept: {error}"))


def _attempt(job: Job, driver: int | None = None) -> Finished:
    """Runs a job in a worker, on one thread.

    Args:
        driver: process that started the workers and ends them on Ctrl-C, which reaches every process of a terminal.
    """
    if driver not in (None, os.getpid()):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_with(driver)
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        result = job.run()
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Finished(job, None, time.perf_counter() - start, reason, traceback.format_exc())
    return Finished(job, result, time.perf_counter() - start)


def _end_with(driver: int) -> None:
    """Ends this worker when its driver is gone: one that was killed (SIGKILL, out of memory) ends nobody itself."""
    if any(thread.name == _WATCHMAN for thread in threading.enumerate()):
        return

    def watch() -> None:
        # An orphan gets another parent.
        while os.getppid() == driver:
            time.sleep(_WATCH)
        os._exit(1)

    threading.Thread(target=watch, name=_WATCHMAN, daemon=True).start()


def _local(jobs: Sequence[Job], workers: int) -> Generator[Finished, None, None]:
    """Attempts in processes of this machine, as they finish."""
    left = {job.key: job for job in jobs}
    for _ in range(RETRIES + 1):
        # A new one each time: results of a broken pool must not reach the next.
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            parallel = joblib.Parallel(
                min(workers, len(left)), return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1, max_nbytes=None
            )
        try:
            # Ctrl-C reaches every process of a terminal: workers inherit that it is not for them.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                attempts = parallel(joblib.delayed(_attempt)(job, os.getpid()) for job in list(left.values()))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for finished in attempts:
                del left[finished.job.key]
                yield finished
        except BrokenProcessPool:
            # One dead worker takes the pool with it: go on with what has not finished.
            continue
        return
    for job in left.values():
        yield Finished(job, None, 0.0, f"the workers died {RETRIES + 1} times (out of memory?) with this job among the last")


def _connect(workers: int | None, address: str | None) -> Any:
    """The module ray, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError(_NO_RAY) from error
    if address is not None:
        _require_reachable(address)
    # Workers start elsewhere: they find modules where this process does, and use one thread.
    folders = [folder for folder in sys.path if folder and not folder.startswith((sys.prefix, sys.base_prefix))]
    environment = {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    try:
        ray.init(
            # Without an address Ray would join whatever cluster runs on this machine.
            address=address or "local",
            num_cpus=None if address else workers,
            include_dashboard=None if address else False,
            runtime_env={"env_vars": environment},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    return ray


def _ray(ray: Any, jobs: Sequence[Job], workers: int | None) -> Generator[Finished, None, None]:
    """Attempts as tasks of a Ray cluster, as they finish. Ray itself tries tasks again whose worker died."""
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_attempt)
        size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = list(reversed(jobs))
        running: dict[Any, Job] = {}
        while waiting or running:
            while waiting and len(running) < size:
                job = waiting.pop()
                running[task.remote(job)] = job
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                yield Finished(job, None, 0.0, f"its worker died {RETRIES + 1} times: {reason}", str(error))
    finally:
        ray.shutdown()


def _require_reachable(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster at {address} ({error}): start one with `ray start --head`, or leave it out") from error


class _Progress:
    """Jobs done, running and left, and the time left: a bar on a terminal, else a line every few seconds, on stderr."""

    def __init__(self, jobs: Sequence[Job], reused: int, workers: int) -> None:
        self.left = {job.key: job.cost for job in jobs}
        self.total, self.workers = len(jobs), workers
        self.started = time.monotonic()
        self.seconds = self.cost = 0.0
        self.bar = tqdm(total=len(jobs), unit="job", disable=not sys.stderr.isatty(), bar_format="{desc}|{bar}| {elapsed}")
        self._say(f"{reused} of {reused + len(jobs)} jobs are done already" if reused else f"{len(jobs)} jobs")
        self.bar.set_description_str(self._state())

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, finished: Finished) -> None:
        self.cost += self.left.pop(finished.job.key)
        self.seconds += finished.seconds
        if finished.error:
            self._say(f"FAILED {finished.job}: {finished.error}")
        elif self.bar.disable and (not self.left or time.monotonic() - Progress.said > _EVERY):
            self._say(f"{self._state()}; {finished.job.name} took {finished.seconds:.1f} s")
        self.bar.update()
        self.bar.set_description_str(self._state())

    def _state(self) -> str:
        running = min(self.workers, len(self.left))
        taken = duration(time.monotonic() - self.started)
        state = f"{self.total - len(self.left)} of {self.total} jobs done, {running} running, {taken}"
        return f"{state}, about {duration(self._time_left())} left" if self.left else state

    def _time_left(self) -> float:
        """Costs are seconds on some machine: scaled by what the finished jobs took on this one."""
        scale = self.seconds / self.cost if self.cost > 0 and self.seconds > 0 else 1.0
        # The last jobs do not fill all workers.
        return scale * max(sum(self.left.values()) / self.workers, max(self.left.values()))

    def _say(self, line: str) -> None:
        Progress.said = time.monotonic()
        tqdm.write(line, file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds for a reader: '12.5 s', and from 100 s on '3.2 min'."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
