"""Killed at any moment, a run goes on to the files of one that nobody touched, byte for byte."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

from . import children
from .campaign import Outcomes


class Kills:
    name = "kills"
    full, short = 200, 4

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes, draw = Outcomes(), random.Random(seed)
        with children.scratch() as scratch:
            references = {name: _Reference(scratch / name, flags) for name, flags in children.SETTINGS.items()}
            faults = {
                "at a write": _at_a_write,
                "at two writes": _at_two_writes,
                "at a write of --overwrite": _at_a_write_of_overwrite,
                "at random": _at_random,
                "Ctrl-C twice at random": _interrupted_twice,
                "Ctrl-C at a write, and again": _interrupted_at_writes,
            }
            for row, fault in faults.items():
                # The plain kills in full, what is rarer a quarter as often.
                for _ in range(size if row in ("at a write", "at random") else max(size // 4, 1)):
                    name = draw.choice(sorted(references))
                    directory = scratch / "try"
                    directory.mkdir()
                    what, failure = fault(references[name], directory, draw)
                    outcomes.count(row, "FAILED" if failure else what, failure and f"{name}: {failure}")
                    shutil.rmtree(directory)
        return outcomes


class _Reference:
    """A run that nobody touches: its files, its steps, its time."""

    def __init__(self, directory: Path, flags: list[str]) -> None:
        directory.mkdir()
        self.arguments = [*flags, "--out", "run"]
        started = time.monotonic()
        ended = children.train(self.arguments, directory)
        self.seconds = time.monotonic() - started
        assert ended.code == 0, str(ended)
        self.files = children.contents(directory / "run")
        shutil.rmtree(directory / "run")
        self.steps = children.count_steps(self.arguments, directory)

    def completed(self, directory: Path, arguments: list[str] | None = None) -> str | None:
        """None where the killed run goes on to the same files, else what went wrong."""
        ended = children.go_on(arguments or self.arguments, directory)
        if ended.code != 0:
            return f"did not go on: {ended}"
        if ended.stderr:
            return f"went on, but said {ended.stderr!r}"
        return children.difference(children.contents(directory / "run"), self.files)


def _at_a_write(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    number = draw.randint(1, reference.steps)
    ended = children.train(reference.arguments, directory, children.at(number, children.kill_self))
    failure = reference.completed(directory)
    return _outcome(ended.code, -signal.SIGKILL), failure and f"step {number} of {reference.steps}: {failure}"


def _at_two_writes(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    first, second = draw.randint(1, reference.steps), draw.randint(1, reference.steps)
    children.train(reference.arguments, directory, children.at(first, children.kill_self))
    children.go_on(reference.arguments, directory, step=children.at(second, children.kill_self))
    failure = reference.completed(directory)
    return "identical", failure and f"steps {first} and then {second}: {failure}"


def _at_a_write_of_overwrite(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    """The old run or the new one: no file of the one beside a file of the other."""
    old = ["--seed", "1", *reference.arguments]
    assert children.train(old, directory).code == 0
    before = children.contents(directory / "run")
    number = draw.randint(1, reference.steps + 10)
    new = [*reference.arguments, "--overwrite"]
    children.train(new, directory, children.at(number, children.kill_self))
    left = {name: content for name, content in children.contents(directory / "run").items() if name[0] != "."}
    if left.get("config.json") == before["config.json"] and any(left[name] != before.get(name) for name in left):
        return "", f"step {number}: files of the new run beside the old config"
    if left.get("config.json") != before["config.json"] and any(left[name] == before.get(name) for name in left):
        return "", f"step {number}: files of the old run beside the new config"
    ended = children.train(new, directory)
    failure = str(ended) if ended.code else children.difference(children.contents(directory / "run"), reference.files)
    return "identical", failure and f"step {number}: {failure}"


def _at_random(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    child, seconds = children.start(reference.arguments, directory), draw.uniform(0, reference.seconds)
    time.sleep(seconds)
    child.kill()
    ended = child.wait()
    failure = reference.completed(directory)
    return _outcome(ended.code, -signal.SIGKILL), failure and f"after {seconds:.4f} s: {failure}"


def _interrupted_twice(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    child = children.start(reference.arguments, directory)
    seconds, gap = draw.uniform(0, reference.seconds), draw.choice([0.0, 1e-4, 1e-3, 1e-2])
    time.sleep(seconds)
    child.kill(signal.SIGINT)
    time.sleep(gap)
    child.kill(signal.SIGINT)
    ended = child.wait()
    where = f"after {seconds:.4f} s and {gap:g} s more"
    if ended.code not in (0, 130) or (ended.code == 130 and not ended.is_interruption):
        return "", f"{where}: {ended}"
    failure = reference.completed(directory)
    return _outcome(ended.code, 130), failure and f"{where}: {failure}"


def _interrupted_at_writes(reference: _Reference, directory: Path, draw: random.Random) -> tuple[str, str | None]:
    """The second one may come while the first is being answered."""
    number, gap = draw.randint(1, reference.steps), draw.randint(1, 3)
    count = 0

    def step(_operation: str, _when: str) -> None:
        nonlocal count
        count += 1
        if count in (number, number + gap):
            children.interrupt_self()

    ended = children.train(reference.arguments, directory, step)
    where = f"steps {number} and {number + gap} of {reference.steps}"
    if ended.code not in (0, 130) or (ended.code == 130 and not ended.is_interruption):
        return "", f"{where}: {ended}"
    failure = reference.completed(directory)
    return _outcome(ended.code, 130), failure and f"{where}: {failure}"


def _outcome(code: int, of_fault: int) -> str:
    return "identical" if code == of_fault else "ended before"


CAMPAIGNS = [Kills()]
