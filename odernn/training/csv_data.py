"""Tables of sequences in long format, a row for each time, as arrays of one length."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MISSING = frozenset(("", "na", "nan", "null", "none"))
_CHANNEL = re.compile(r"([xy])(\d*)")
_DELIMITERS = ",;\t"
Array = NDArray[np.float64]


def read_table(path: Path) -> dict[str, Any]:
    """The arrays t, x, y and, where there is one, split of a .csv file, as `odernn.training.data_files` describes it.

    Sequences with fewer rows than the longest are padded at their end: x stays as it was last, y is missing, and the times are
    those of the longest sequence where they agree so far, else go on in the finest mean step of all. Nothing that comes after a
    sequence's last row has an effect on what is fitted.

    Returns:
        t (time,) where all sequences agree, else (batch, time); x (batch, time, input); y (batch, time, output) with NaN for a
        missing target; split (batch,).

    Raises:
        ValueError: a table of another kind; names the row, as an editor counts lines, and the column.
    """
    header, rows, lines = _rows(path)
    inputs, outputs = (_channels(header, kind) for kind in "xy")
    column = {name: [row[header.index(name)] for row in rows] for name in header}
    t = _numbers("t", column["t"], lines, "there is no time without it; leave the row out")
    gap = "x drives the model at all times; fill it in, or leave the row out: x is interpolated between the rows that are left"
    x = np.stack([_numbers(name, column[name], lines, gap) for name in inputs], -1)
    y = np.stack([_numbers(name, column[name], lines, None) for name in outputs], -1)
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(column.get("sequence", [""] * len(rows))):
        groups.setdefault(name, []).append(row)
    for name, group in groups.items():
        _require_times(name, t, group, lines, "sequence" in header)
    longest = t[max(groups.values(), key=len)]
    same = all(np.array_equal(t[group], longest[: len(group)]) for group in groups.values())
    # By the finest mean step of all: nothing is asked of a model there, and it must not run far beyond what was measured.
    step = min(float(t[group][-1] - t[group][0]) / (len(group) - 1) for group in groups.values())
    padded = [_padded(t[group], x[group], y[group], longest, step, same) for group in groups.values()]
    arrays: dict[str, Any] = dict(zip("txy", map(np.stack, zip(*padded))))
    if same:
        arrays["t"] = longest
    if "split" in header:
        split = _numbers("split", column["split"], lines, "0 trains and 1 validates")
        for name, group in groups.items():
            if len(set(split[group])) > 1:
                raise ValueError(f"column 'split' changes within sequence {name!r}; give all rows of a sequence the same")
        arrays["split"] = np.array([split[group[0]] for group in groups.values()])
    return arrays


def _rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The header, the rows that are not blank, and the lines they end on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = max(_DELIMITERS, key=first.count)
            header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
            reader = csv.reader(file, delimiter=delimiter)
            rows, lines = [], []
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append(row)
                    lines.append(reader.line_num + 1)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot be read ({reason}); save it as comma-separated text in UTF-8") from error
    _require_header(header)
    for row, line in zip(rows, lines):
        if len(row) != len(header):
            raise ValueError(f"row {line} has {len(row)} cells, expected {len(header)} ({', '.join(header)}); complete it")
    if len(rows) < 2:
        raise ValueError(f"has {len(rows)} rows below its header, expected at least two times; add rows")
    return header, rows, lines


def _require_header(header: list[str]) -> None:
    expected = "expected a header such as sequence,t,x,y (or x1,x2,.. and y1,y2,..; sequence and split are optional)"
    if header and all(map(_is_number, header)):
        raise ValueError(f"the first row holds numbers, {expected}; add it")
    if len(set(header)) < len(header):
        double = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"column {double!r} is there twice; rename one")
    for name in header:
        if name not in ("sequence", "t", "split") and not _CHANNEL.fullmatch(name):
            raise ValueError(f"column {name!r} is unknown, {expected}; rename or remove it")
    for kind in "txy":
        if not any(name == kind or (kind != "t" and name.startswith(kind)) for name in header):
            raise ValueError(f"column {kind!r} is missing, got {', '.join(header)}; {expected}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _channels(header: list[str], kind: str) -> list[str]:
    """x, or x1, x2, ... in the order of their numbers."""
    names = [name for name in header if name.startswith(kind)]
    if names == [kind]:
        return names
    numbers = sorted(int(name[1:] or -1) for name in names)
    if numbers not in (list(range(len(names))), list(range(1, len(names) + 1))):
        raise ValueError(f"columns {', '.join(names)} are not counted {kind}1, {kind}2, ...; rename them")
    return sorted(names, key=lambda name: int(name[1:]))


def _numbers(name: str, cells: list[str], lines: list[int], gap: str | None) -> Array:
    """A column as numbers; where `gap` says what to do about them, empty cells are refused."""
    read: Callable[[str], float] = float if gap is not None else lambda cell: math.nan if _missing(cell) else float(cell)
    try:
        values = np.array([read(cell) for cell in cells])
        if np.isfinite(values).all() or (gap is None and not np.isinf(values).any()):
            return values
    except ValueError:
        pass
    for cell, line in zip(cells, lines):
        if _missing(cell):
            if gap is not None:
                raise ValueError(f"row {line}: {name} is empty, expected a number, since {gap}")
        elif not _is_number(cell) or math.isinf(float(cell)):
            raise ValueError(f"row {line}: {name} is {cell.strip()!r}, expected a finite number with a decimal point; correct it")
    raise AssertionError(f"column {name} was refused without a reason")


def _missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _require_times(name: str, t: Array, group: list[int], lines: list[int], named: bool) -> None:
    if len(group) < 2:
        raise ValueError(f"sequence {name!r} has one row (row {lines[group[0]]}), expected at least two times; leave it out")
    steps = np.diff(t[group])
    if (steps <= 0).any():
        k = int(np.argmax(steps <= 0))
        remedy = (
            "sort its rows and drop repetitions" if named else "sort the rows, or tell sequences apart by a column 'sequence'"
        )
        of = f" of sequence {name!r}" if named else ""
        raise ValueError(
            f"t{of} is not increasing: {t[group[k]]:g} in row {lines[group[k]]}, {t[group[k + 1]]:g} in row "
            f"{lines[group[k + 1]]}; {remedy}"
        )


def _padded(t: Array, x: Array, y: Array, longest: Array, step: float, same: bool) -> tuple[Array, Array, Array]:
    """One sequence with as many times as the longest."""
    more = len(longest) - len(t)
    times = longest if same else np.concatenate([t, t[-1] + step * np.arange(1, more + 1)])
    return times, np.pad(x, ((0, more), (0, 0)), mode="edge"), np.pad(y, ((0, more), (0, 0)), constant_values=math.nan)
