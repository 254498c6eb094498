"""Campaigns of so many random faults, each with an outcome; a silent one is a failure."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass
class Outcomes:
    """The outcomes of all tries.

    table: row (kind of fault) -> outcome -> how often.
    failures: one line for each try that must not have ended so, with what repeats it.
    skipped: what could not be tried here, and why.
    """

    table: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def count(self, row: str, outcome: str, failure: str | None = None) -> None:
        self.table.setdefault(row, Counter())[outcome] += 1
        if failure is not None:
            self.failures.append(f"{row}: {outcome}: {failure}")

    @property
    def tried(self) -> int:
        return sum(sum(row.values()) for row in self.table.values())

    def __str__(self) -> str:
        names = sorted({name for row in self.table.values() for name in row})
        cells = [["", "tried", *names]]
        for row, counts in self.table.items():
            cells.append([row, str(sum(counts.values())), *(str(counts[name] or "") for name in names)])
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
        lines += [f"skipped: {line}" for line in self.skipped]
        lines += [f"FAILED {line}" for line in self.failures]
        return "\n".join(lines)


class Campaign(Protocol):
    """One campaign. The same seed and size try the same faults.

    name: on the command line.
    full, short: tries of each kind, in full and in the test suite.
    """

    name: str
    full: int
    short: int

    def run(self, seed: int, size: int) -> Outcomes: ...


def registry() -> dict[str, Campaign]:
    """The campaigns of this folder: every module's `CAMPAIGNS`, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names if name[0] != "_" and name[:5] != "test_"]
    return {campaign.name: campaign for module in modules for campaign in getattr(module, "CAMPAIGNS", ())}
