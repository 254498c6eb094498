"""How long the cases of `benchmark.py` take, from the times that are stored in the repository."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .benchmark_cases import CASES, has_errors
from .benchmark_contenders import LONG, PATIENCE
from .benchmark_precision import RUNS, SLOW

_STORED = Path(__file__).parents[2] / "reproduction" / "benchmark" / "benchmark.json"
# Seconds to load the libraries of a contender, several of them side by side; for the reference of a case, meanwhile; and at most
# for what a first run does once, but compile.
_LOAD, _REFERENCE, _ONCE = 1.0, 8.0, 2.0
# Turns of a contender by the seconds of one; more where they are short and there is time.
_TURNS = ((3.0, 1), (1.0, 2), (0.0, 3))


def stored() -> list[dict[str, Any]]:
    """The rows of the stored benchmark; none where the script runs without it."""
    return json.loads(_STORED.read_text())["rows"] if _STORED.exists() else []


class Plan:
    """The cases of a run and their contenders, with about how long each takes.

    Args:
        contenders: by case, in order.
        rows: of an earlier run, as `benchmark.json` has them.
        seconds: for the turns of a case.
    """

    def __init__(self, contenders: Mapping[str, Sequence[str]], rows: Sequence[dict[str, Any]], seconds: float) -> None:
        self.contenders, self.seconds = contenders, seconds
        self.started = time.perf_counter()
        known = {(row["case"], row["contender"]): row for row in rows}
        self.expected = [self._case(name, known) for name in contenders]

    def __str__(self) -> str:
        lines = [
            f"{name}: {', '.join(self.contenders[name])} ({seconds:.0f} s)"
            for name, seconds in zip(self.contenders, self.expected)
        ]
        total = f"{len(lines)} cases, about {sum(self.expected) / 60:.0f} minutes on the machine of the stored times"
        return "\n".join([*lines, total])

    def left(self, done: int) -> str:
        """The time left after so many cases, at the pace of these."""
        past, rest = sum(self.expected[:done]), sum(self.expected[done:])
        pace = (time.perf_counter() - self.started) / past if past else 1.0
        return f"about {max(1, round(pace * rest / 60))} min left" if rest else "done"

    def _case(self, name: str, known: Mapping[tuple[str, str], dict[str, Any]]) -> float:
        prepared, turns, errors = 0.0, 0.0, has_errors(CASES[name])
        for contender in self.contenders[name]:
            prepared += _LOAD
            row = known.get((name, contender), {})
            if "points" in row:
                prepared += sum(one["median_s"] * (2 if one["median_s"] > SLOW else 1 + RUNS) for one in row["points"])
                continue
            once, first = self._run(name, contender, known)
            turns += once * next(count for seconds, count in _TURNS if once >= seconds)
            prepared += min(first, PATIENCE, 2 * once + _ONCE) + once * (errors + (once < LONG))
        return max(prepared, _REFERENCE if errors else 0.0) + max(turns, self.seconds if turns else 0.0)

    def _run(self, name: str, contender: str, known: Mapping[tuple[str, str], dict[str, Any]]) -> tuple[float, float]:
        """Seconds of a run, and of the first; of a case that is not known, by its size from one of its kind that is."""
        case = CASES[name]
        size = case.batch * case.times * case.m * case.layers * case.members
        for (other, who), row in sorted(known.items(), key=lambda item: item[0][0] != name):
            alike = CASES.get(other)
            if who == contender and "median_s" in row and alike is not None and alike.kind == case.kind:
                ratio = 1.0 if other == name else size / (alike.batch * alike.times * alike.m * alike.layers * alike.members)
                return ratio * row["median_s"] * row["share"], max(1.0, ratio) * row["first_s"]
        return 1.0, 2.0
