"""Disks that are full, read-only or gone: one line that names the file and how to go on, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import children
from .campaign import Outcomes

# Of a whole run, about what its files take; a page is the least that a tmpfs hands out.
_PAGE, _PAGES = 4096, 24


class Disks:
    name = "disks"
    full, short = 50, 2

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes, draw = Outcomes(), random.Random(seed)
        with children.scratch() as scratch:
            references = {}
            for name, flags in children.SETTINGS.items():
                directory = scratch / name
                directory.mkdir()
                arguments = [*flags, "--out", "run"]
                steps = children.count_steps(arguments, directory)
                references[name] = (arguments, steps, children.contents(directory / "run"))
            faults = {"no space at a write": _no_space, "removed while training": _removed, "moved away while training": _moved}
            if _can_mount(scratch):
                faults |= {"small file system": _small, "read-only file system": _read_only}
            else:
                outcomes.skipped.append("small and read-only file systems: mounting a tmpfs is not permitted here")
            for row, fault in faults.items():
                for _ in range(size):
                    name = draw.choice(sorted(references))
                    directory = scratch / "try"
                    directory.mkdir()
                    where, outcome, failure = fault(Trial(directory, draw, *references[name]))
                    outcomes.count(row, "FAILED" if failure else outcome, failure and f"{name}, {where}: {failure}")
                    shutil.rmtree(directory)
        return outcomes


@dataclass
class Trial:
    """A training to which something happens.

    directory: an empty one.
    draw: says when it happens.
    arguments: of the training, whose run directory is `run`.
    steps: operations on files that it takes undisturbed.
    expected: the files that it leaves then.
    """

    directory: Path
    draw: random.Random
    arguments: list[str]
    steps: int
    expected: dict[str, bytes]
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.draw.randint(1, self.steps)

    @property
    def where(self) -> str:
        return f"step {self.number} of {self.steps}"

    def judge(
        self,
        ended: children.Ended,
        *words: str,
        cwd: Path | None = None,
        undisturbed: str = "ended before",
        mend: Callable[[], None] = lambda: None,
    ) -> tuple[str, str | None]:
        """The outcome, and what is wrong with it: a training that ended well leaves a whole run or none, any other refuses by
        these words, and goes on to a whole run once the fault is mended."""
        cwd = cwd or self.directory
        if ended.code == 0:
            there = (cwd / "run").exists()
            return undisturbed, children.difference(children.contents(cwd / "run"), self.expected) if there else None
        if not _refused(ended, "run", *words):
            return "", str(ended)
        mend()
        ended = children.go_on(self.arguments, cwd)
        failure = str(ended) if ended.code else children.difference(children.contents(cwd / "run"), self.expected)
        return "refused, then identical", failure


def _refused(ended: children.Ended, *words: str) -> bool:
    """One line that names the directory and what to do."""
    ways = ("--resume", "choose another --out", " again")
    named = all(word in ended.stderr for word in words) and any(way in ended.stderr for way in ways)
    return ended.code in (1, 2) and ended.is_one_line and named


def _no_space(trial: Trial) -> tuple[str, str, str | None]:
    """No operation succeeds from a step on."""
    count = 0

    def step(operation: str, when: str) -> None:
        nonlocal count
        count += 1
        if count >= trial.number and operation in ("open", "write", "fsync", "mkdir", "ftruncate") and when != "after":
            children.no_space()

    ended = children.train(trial.arguments, trial.directory, step)
    return trial.where, *trial.judge(ended, "No space left on device")


def _removed(trial: Trial) -> tuple[str, str, str | None]:
    step = children.at(trial.number, lambda: shutil.rmtree("run", ignore_errors=True))
    return trial.where, *trial.judge(children.train(trial.arguments, trial.directory, step))


def _moved(trial: Trial) -> tuple[str, str, str | None]:
    """Moved, and another run made in its place: that one stays as it is."""
    other = trial.directory / "other"
    other.mkdir()
    (other / "config.json").write_text("another run's")
    count = 0

    def step(operation: str, when: str) -> None:
        nonlocal count
        count += 1
        # Between the last look and the rename there is an instant that nobody guards.
        if count >= trial.number and (operation, when) != ("replace", "before") and not Path("moved").exists():
            with contextlib.suppress(OSError):
                os.rename("run", "moved")
                os.rename("other", "run")

    ended = children.train(trial.arguments, trial.directory, step)
    if (trial.directory / "moved").exists():
        found = {name: content for name, content in children.contents(trial.directory / "run").items() if name[0] != "."}
        if found != {"config.json": b"another run's"}:
            return trial.where, "", f"wrote {sorted(found)} into another's directory"
    if ended.code == 0:
        return trial.where, "ended before", None
    return trial.where, "refused", None if _refused(ended, "run") else str(ended)


@contextlib.contextmanager
def _mounted(directory: Path, pages: int) -> Iterator[None]:
    options = f"size={pages * _PAGE}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True)


def _remount(directory: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True, capture_output=True)


def _can_mount(scratch: Path) -> bool:
    directory = scratch / "mount"
    directory.mkdir()
    try:
        with _mounted(directory, 1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _small(trial: Trial) -> tuple[str, str, str | None]:
    pages = trial.draw.randint(1, _PAGES)
    disk = trial.directory / "disk"
    disk.mkdir()
    with _mounted(disk, pages):
        ended = children.train([*trial.arguments[:-1], "disk/run"], trial.directory)
        outcome = trial.judge(
            ended,
            "No space left on device",
            "disk/run",
            cwd=disk,
            undisturbed="room enough",
            mend=lambda: _remount(disk, f"size={1000 * _PAGE}"),
        )
    return f"{pages} pages", *outcome


def _read_only(trial: Trial) -> tuple[str, str, str | None]:
    """Under a run that was killed at some step, for every command that would write there."""
    disk = trial.directory / "disk"
    disk.mkdir()
    with _mounted(disk, 1000):
        children.train(trial.arguments, disk, children.at(trial.number, children.kill_self))
        made = (disk / "run").exists()
        before = children.contents(disk / "run") if made else {}
        _remount(disk, "ro")
        commands = [trial.arguments, [*trial.arguments, "--overwrite"], *([["--resume", "run"]] if made else [])]
        for command in commands:
            ended = children.train(command, disk)
            if not _refused(ended, "run"):
                return trial.where, "", f"{command[-1]}: {ended}"
        if made and children.contents(disk / "run") != before:
            return trial.where, "", "files changed"
        return trial.where, *trial.judge(ended, cwd=disk, mend=lambda: _remount(disk, "rw"))


CAMPAIGNS = [Disks()]
