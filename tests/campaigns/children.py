"""Trainings in forked children, with a fault at a chosen step of their work on files."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_COMMON = shlex.split(
    "--hidden-size 3 --points 9 --horizon 2 --train-size 4 --validation-size 4 --epochs 3 --lr 0.5 "
    "--solver rk4 --solver-tolerance 0.1"
)
_OWN = {"lbfgs": ["--optimizer", "lbfgs", "--iterations", "2"], "adam": ["--optimizer", "adam", "--batch-size", "2"]}
# Learning rates that let some epochs be worse than the best.
SETTINGS = {
    f"{optimizer} {schedule}": [*_COMMON, *flags, "--schedule", schedule]
    for optimizer, flags in _OWN.items()
    for schedule in ("none", "plateau", "cosine")
}
_SCRIPTS = Path(__file__).parents[2] / "scripts"
HANG = 60.0


@dataclass
class Ended:
    """How a child ended: its exit code (negative: the signal) and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def is_one_line(self) -> bool:
        return len(self.stderr.strip().splitlines()) == 1 and "Traceback" not in self.stderr

    @property
    def is_interruption(self) -> bool:
        """A line, or one for each of two Ctrl-C."""
        lines = self.stderr.strip().splitlines()
        return 1 <= len(lines) <= 2 and all(line.startswith("train_ode.py: error: interrupted") for line in lines)

    def __str__(self) -> str:
        return f"exit {self.code}: {self.stderr.strip()[-300:] or '(nothing said)'}"


@dataclass
class Child:
    """A running child."""

    pid: int
    output: Path
    ended: Ended | None = field(default=None)

    def wait(self) -> Ended:
        """Its end; a child that hangs is killed and has code -9 and "hung"."""
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return self._end(os.waitstatus_to_exitcode(status))
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        ended = self._end(-signal.SIGKILL)
        ended.stderr += "\nhung\n"
        return ended

    def stops(self) -> bool:
        """Waits until it stops itself; False where it ends before."""
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                return True
            if pid:
                self._end(os.waitstatus_to_exitcode(status))
                return False
            time.sleep(0.002)
        return False

    def kill(self, sign: int = signal.SIGKILL) -> None:
        os.kill(self.pid, sign)

    def _end(self, code: int) -> Ended:
        texts = [(self.output / name).read_text() for name in ("stdout", "stderr")]
        shutil.rmtree(self.output)
        self.ended = Ended(code, *texts)
        return self.ended


@cache
def _script() -> Any:
    """train_ode.py as a module, everything that it needs imported and warm: children start at once."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(_SCRIPTS))
    try:
        from odernn_commands import train_ode
    finally:
        sys.path.remove(str(_SCRIPTS))
    from odernn.experiment import Experiment, ExperimentConfig

    Experiment(ExperimentConfig(hidden_size=2, points=3, horizon=1.0, train_size=1, validation_size=1, solver="rk4"))
    return train_ode


def start(arguments: Sequence[str], cwd: Path, step: Callable[[str, str], None] | None = None) -> Child:
    """train_ode.py with these arguments in a child, without its pictures and with a clock that stands still.

    Args:
        arguments: of the command line.
        cwd: working directory.
        step: called in the child before and after each of its operations on files, with the operation's name and 'before',
            'half' or 'after'.
    """
    script = _script()
    output = Path(tempfile.mkdtemp(prefix="child-", dir=cwd.parent))
    for name in ("stdout", "stderr"):
        (output / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: these wait
        # Ctrl-C waits until the script is there to answer it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return Child(pid, output)
    code = 99
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(output / name, os.O_WRONLY), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        sys.argv = ["train_ode.py", *map(str, arguments)]
        script.draw = lambda *_: None
        from odernn.training import trainer

        trainer.time = type("StandingClock", (), {"perf_counter": staticmethod(lambda: 0.0)})  # type: ignore[assignment]
        if step is not None:
            _watch_files(step)

        def main() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            script.main()

        from odernn_commands.command_line import run

        run(script.PROGRAM, main)
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        # Nothing of the parent's may run in the child: no test's end, no buffer of its output.
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def train(arguments: Sequence[str], cwd: Path, step: Callable[[str, str], None] | None = None) -> Ended:
    return start(arguments, cwd, step).wait()


def go_on(arguments: Sequence[str], cwd: Path, out: str = "run", step: Callable[[str, str], None] | None = None) -> Ended:
    """Goes on as a user does after a crash: --resume, and where that says so the same command again."""
    ended = train(["--resume", out], cwd, step)
    if ended.code == 2 and ended.is_one_line and ("again" in ended.stderr or "no run directory" in ended.stderr):
        return train(arguments, cwd, step)
    return ended


def at(number: int, act: Callable[[], None]) -> Callable[[str, str], None]:
    """A step that acts at the given one, counted from 1."""
    count = 0

    def step(_operation: str, _when: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            act()

    return step


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt_self() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def count_steps(arguments: Sequence[str], cwd: Path) -> int:
    """How many steps the command takes."""
    log = cwd / "steps"

    def step(_operation: str, _when: str) -> None:
        with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
            file.write(".")

    ended = train(arguments, cwd, step)
    assert ended.code == 0, str(ended)
    steps = len(log.read_text())
    log.unlink()
    return steps


def contents(directory: Path) -> dict[str, bytes]:
    """Every file's bytes; hidden ones too."""
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}


def difference(found: dict[str, bytes], expected: dict[str, bytes]) -> str | None:
    names = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
    both = found.keys() & expected.keys()
    return ", ".join(f"{name} {'differs' if name in both else 'extra or missing'}" for name in names) or None


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: a disk would be waited for at every write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


def _watch_files(step: Callable[[str, str], None]) -> None:
    """Calls `step` around every operation on files that run directories are written by."""
    from odernn import run_lock, runs

    def watched(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            step(name, "before")
            result = operation(*arguments, **options)
            step(name, "after")
            return result

        return call

    class HalfWritten:
        """A file whose writes can be cut in the middle."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> HalfWritten:
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            step("write", "half")
            self.file.write(content[len(content) // 2 :])

        def flush(self) -> None:
            self.file.flush()

        def fileno(self) -> int:
            return int(self.file.fileno())

    def half_written(path: Path, mode: str) -> HalfWritten:
        return HalfWritten(open(path, mode))

    runs.open = watched("open", half_written)  # type: ignore[attr-defined]
    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, watched(name, getattr(Path, name)))
    for name in ("fsync", "ftruncate"):
        setattr(os, name, watched(name, getattr(os, name)))
    run_lock._lock_in_kernel = watched("lock", run_lock._lock_in_kernel)
