"""Disks that are full, read-only or gone: one line that names the file and how to go on, and nothing lost."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
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
                    outcome, failure = fault(directory, draw, *references[name])
                    outcomes.count(row, "FAILED" if failure else outcome, failure and f"{name}: {failure}")
                    shutil.rmtree(directory)
        return outcomes


def _refused(ended: children.Ended, *words: str) -> bool:
    """One line that names the directory and what to do."""
    ways = ("--resume", "choose another --out", " again")
    named = all(word in ended.stderr for word in words) and any(way in ended.stderr for way in ways)
    return ended.code in (1, 2) and ended.is_one_line and named


def _goes_on(arguments: list[str], cwd: Path, expected: dict[str, bytes]) -> str | None:
    ended = children.go_on(arguments, cwd)
    return str(ended) if ended.code else children.difference(children.contents(cwd / "run"), expected)


def _no_space(
    directory: Path, draw: random.Random, arguments: list[str], steps: int, expected: dict[str, bytes]
) -> tuple[str, str | None]:
    """No operation succeeds from a step on."""
    number = draw.randint(1, steps)
    count = 0

    def step(operation: str, when: str) -> None:
        nonlocal count
        count += 1
        if count >= number and operation in ("open", "write", "fsync", "mkdir", "ftruncate") and when != "after":
            children.no_space()

    ended = children.train(arguments, directory, step)
    if ended.code == 0:
        return "ended before", None
    where = f"step {number} of {steps}"
    if not _refused(ended, "No space left on device", "run"):
        return "", f"{where}: {ended}"
    failure = _goes_on(arguments, directory, expected)
    return "refused, then identical", failure and f"{where}: {failure}"


def _removed(
    directory: Path, draw: random.Random, arguments: list[str], steps: int, expected: dict[str, bytes]
) -> tuple[str, str | None]:
    number = draw.randint(1, steps)
    ended = children.train(arguments, directory, children.at(number, lambda: shutil.rmtree("run", ignore_errors=True)))
    where = f"step {number} of {steps}"
    if ended.code == 0:  # before it was made, or after the last write
        there = (directory / "run").exists()
        failure = there and children.difference(children.contents(directory / "run"), expected)
        return "ended before", (failure and f"{where}: {failure}") or None
    if not _refused(ended, "run"):
        return "", f"{where}: {ended}"
    failure = _goes_on(arguments, directory, expected)
    return "refused, then identical", failure and f"{where}: {failure}"


def _moved(
    directory: Path, draw: random.Random, arguments: list[str], steps: int, expected: dict[str, bytes]
) -> tuple[str, str | None]:
    """Moved, and another run made in its place: that one stays as it is."""
    number = draw.randint(1, steps)
    other = directory / "other"
    other.mkdir()
    (other / "config.json").write_text("another run's")

    count = 0

    def step(operation: str, when: str) -> None:
        nonlocal count
        count += 1
        # Between the last look and the rename there is an instant that nobody guards.
        if count >= number and (operation, when) != ("replace", "before") and not Path("moved").exists():
            with contextlib.suppress(OSError):
                os.rename("run", "moved")
                os.rename("other", "run")

    ended = children.train(arguments, directory, step)
    where = f"step {number} of {steps}"
    if (directory / "moved").exists():
        found = {name: content for name, content in children.contents(directory / "run").items() if name[0] != "."}
        if found != {"config.json": b"another run's"}:
            return "", f"{where}: wrote {sorted(found)} into another's directory"
    if ended.code == 0:
        return "ended before", None
    return "refused", None if _refused(ended, "run") else f"{where}: {ended}"


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


def _small(
    directory: Path, draw: random.Random, arguments: list[str], steps: int, expected: dict[str, bytes]
) -> tuple[str, str | None]:
    pages = draw.randint(1, _PAGES)
    disk = directory / "disk"
    disk.mkdir()
    with _mounted(disk, pages):
        ended = children.train([*arguments[:-1], "disk/run"], directory)
        where = f"{pages} pages"
        if ended.code == 0:
            failure = children.difference(children.contents(disk / "run"), expected)
            return "room enough", failure and f"{where}: {failure}"
        if not _refused(ended, "No space left on device", "disk/run"):
            return "", f"{where}: {ended}"
        _remount(disk, f"size={1000 * _PAGE}")
        failure = _goes_on(arguments, disk, expected)
    return "refused, then identical", failure and f"{where}: {failure}"


def _read_only(
    directory: Path, draw: random.Random, arguments: list[str], steps: int, expected: dict[str, bytes]
) -> tuple[str, str | None]:
    """Under a run that was killed at some step, for every command that would write there."""
    number = draw.randint(1, steps)
    where = f"step {number} of {steps}"
    disk = directory / "disk"
    disk.mkdir()
    with _mounted(disk, 1000):
        children.train(arguments, disk, children.at(number, children.kill_self))
        made = (disk / "run").exists()
        before = children.contents(disk / "run") if made else {}
        _remount(disk, "ro")
        commands = [arguments, [*arguments, "--overwrite"], *([["--resume", "run"]] if made else [])]
        for command in commands:
            ended = children.train(command, disk)
            if not _refused(ended, "run"):
                return "", f"{where}, {command[-1]}: {ended}"
        if made and children.contents(disk / "run") != before:
            return "", f"{where}: files changed"
        _remount(disk, "rw")
        failure = _goes_on(arguments, disk, expected)
    return "refused, then identical", failure and f"{where}: {failure}"


CAMPAIGNS = [Disks()]
