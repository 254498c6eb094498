"""Several processes on one run directory: one writes, the others are told who does."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from . import children
from .campaign import Outcomes

_NAME = "adam plateau"
_FLAGS = children.SETTINGS[_NAME]


class Writers:
    name = "writers"
    full, short = 50, 2

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes, draw = Outcomes(), random.Random(seed)
        with children.scratch() as scratch:
            files = {}
            for number, flags in enumerate((_FLAGS, ["--seed", "1", *_FLAGS])):
                directory = scratch / str(number)
                directory.mkdir()
                assert children.train([*flags, "--out", "run"], directory).code == 0
                files[number] = children.contents(directory / "run")
            steps = children.count_steps([*_FLAGS, "--out", "other"], scratch / "0")
            for row, fault in {
                "the same command": ([*_FLAGS, "--out", "run"], 0),
                "--resume": (["--resume", "run"], 0),
                "--overwrite": (["--seed", "1", *_FLAGS, "--out", "run", "--overwrite"], 1),
            }.items():
                for _ in range(size):
                    _tried(outcomes, f"{row} beside a writer", scratch, _beside_a_writer(*fault, files, steps, draw))
            for _ in range(size):
                _tried(outcomes, "all at once, one --out", scratch, _at_once(files, draw))
                _tried(outcomes, "all at once, default --out", scratch, _sweep(files[0], draw))
        return outcomes


def _tried(outcomes: Outcomes, row: str, scratch: Path, fault: object) -> None:
    directory = scratch / "try"
    directory.mkdir()
    outcome, failure = fault(directory)  # type: ignore[operator]
    outcomes.count(row, "FAILED" if failure else outcome, failure)
    shutil.rmtree(directory)


def _beside_a_writer(
    second: list[str], whose: int, files: dict[int, dict[str, bytes]], steps: int, draw: random.Random
) -> object:
    """The first stops at some step; the second comes; the first goes on, or is killed."""
    number, killed = draw.randint(1, steps), draw.random() < 0.3

    def fault(directory: Path) -> tuple[str, str | None]:
        stop = children.at(number, lambda: signal.raise_signal(signal.SIGSTOP))
        first = children.start([*_FLAGS, "--out", "run"], directory, stop)
        if not first.stops():
            return "ended before", None
        locked = (directory / "run" / ".lock").exists() and bool((directory / "run" / ".lock").read_bytes())
        beside = children.train(second, directory)
        said = beside.code == 2 and beside.is_one_line and f"process {first.pid} on" in beside.stderr
        where = f"step {number} of {steps}"
        if locked and not said:
            first.kill()
            first.wait()
            return "", f"{where}: locked, but the second had {beside}"
        first.kill(signal.SIGKILL if killed else signal.SIGCONT)
        ended = first.wait()
        if killed:
            after = children.train(second, directory)
            if "--resume" in second and after.code == 2 and "again" in after.stderr:
                return "refused, then free", None
            found = children.difference(children.contents(directory / "run"), files[whose])
            if "holds a run already" in after.stderr:  # the same command, after a checkpoint
                return "refused, then held", None
            return "refused, then free", (str(after) if after.code else found) and f"{where}: {after} {found}"
        # One of the two trained, the other was told so, and the files are those of one.
        winner = whose if beside.code == 0 else 0
        if (ended.code == 0) == (beside.code == 0) or not all(end.code == 0 or end.is_one_line for end in (ended, beside)):
            return "", f"{where}: first {ended}; second {beside}"
        found = children.difference(children.contents(directory / "run"), files[winner])
        return ("second won" if beside.code == 0 else "refused"), found and f"{where}: {found}"

    return fault


def _at_once(files: dict[int, dict[str, bytes]], draw: random.Random) -> object:
    seeds = [draw.randint(0, 1) for _ in range(3)]

    def fault(directory: Path) -> tuple[str, str | None]:
        commands = [["--seed", str(seed), *_FLAGS, "--out", "run"] for seed in seeds]
        ended = [child.wait() for child in [children.start(command, directory) for command in commands]]
        winners = [seed for seed, end in zip(seeds, ended) if end.code == 0]
        if len(winners) != 1 or not all(end.code == 0 or (end.code == 2 and end.is_one_line) for end in ended):
            return "", "; ".join(map(str, ended))
        return "one winner", children.difference(children.contents(directory / "run"), files[winners[0]])

    return fault


def _sweep(expected: dict[str, bytes], draw: random.Random) -> object:
    number = draw.randint(2, 4)

    def fault(directory: Path) -> tuple[str, str | None]:
        ended = [child.wait() for child in [children.start(_FLAGS, directory) for _ in range(number)]]
        made = sorted((directory / "runs").iterdir())
        if any(end.code for end in ended) or len(made) != number:
            return "", f"{len(made)} directories of {number}: {'; '.join(map(str, ended))}"
        return "a directory each", next(
            filter(None, (children.difference(children.contents(run), expected) for run in made)), None
        )

    return fault


CAMPAIGNS = [Writers()]
