"""Memory functions of many random systems of one kind: the mean curve with its band, and what `fit_decay` says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...decay import EXPONENTIAL_END, fit_decay
from ...memory import MemoryFunction

# Of a long curve this many points are kept for the picture.
_POINTS = 100


def band(memories: Sequence[MemoryFunction]) -> dict[str, Any]:
    """Mean and standard deviation of log10 M over systems, while all are above their numerical floors.

    On the logarithmic scale, because arithmetic means of curves that differ by decades show the largest alone, and a band of
    theirs reaches below 0.

    Returns:
        {"times", "mean", "deviation"}, one entry for each time kept.
    """
    values = np.stack([M.values.numpy() for M in memories])
    above = np.all([M.above_floor.numpy() for M in memories], axis=0)
    # M(0) = 0 where the input has layers to pass.
    first = int(np.argmax(above))
    end = first + int(np.argmin(np.append(above, False)[first:]))
    kept = np.unique(np.linspace(first, max(end - 1, first), _POINTS).round().astype(int))
    logs = np.log10(values[:, kept])
    return {"times": memories[0].times.numpy()[kept], "mean": logs.mean(0), "deviation": logs.std(0, ddof=min(1, len(logs) - 1))}


def verdict(M: MemoryFunction, start: float = 0.0) -> dict[str, Any]:
    """The law by which M decays from time `start` on: {"law", "rate", "stderr", "window"}; the rate, in 1/time, where it falls
    exponentially in the end."""
    late = M.times >= start
    fit = fit_decay(replace(M, times=M.times[late], values=M.values[late], maximizer=M.maximizer[late]))
    return {
        "law": fit.law,
        "rate": fit.rate if fit.ends_exponentially else None,
        "stderr": fit.stderr if fit.ends_exponentially else None,
        "window": list(fit.window),
    }


def exponentials(fits: Sequence[Mapping[str, Any]]) -> int:
    """How many fall exponentially in the end, alone or with a power of t or a second exponential before it."""
    return sum(fit["law"] in EXPONENTIAL_END for fit in fits)
