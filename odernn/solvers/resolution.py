"""Estimates of the error of a solve, and the warning where its steps do not resolve the input or the dynamics.

The estimate is Richardson's. With h the solution of rk4, of order p = 4, and h' that of steps half as long,

    |h - h(exact)|  ~  2^p / (2^p - 1) |h - h'|,

and h' is rk4's for the methods of lower order too, whose own may stand still together (the midpoint rule does where a relu is off
half a step ahead).
Far outside the range of convergence the distance is still large: unstable steps of two lengths do not agree, also where a bounded
activation keeps both finite. It is made on a few sequences of every solve, those whose inputs are the roughest, the smoothest,
the largest and the smallest, and in an ensemble on the members with the largest weights, so that it costs a few per cent of
a batch. In a training that comes back with the same input and nearly the same weights, an estimate far from what is noticed
holds on. What all this misses: a sequence or member that fails for a reason of its own.
"""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Solver

# The estimate (relative, L2 over the states of one sequence) above which a solve is called inaccurate.
NOTICEABLE_ERROR = 1e-3
# The error, in units of what one step may be off by, above which an adaptive solve is called inaccurate.
NOTICEABLE_TOLERANCES = 100
# Sequences judged: one tile of the compiled kernels, which take no longer for it than for one.
_SEQUENCES = 8
# Members judged: all of a small ensemble, else as many as keep the cost to this part of the solve's.
_MEMBERS = 8
_SHARE = 1 / 32
# An estimate holds on while it is that far below or above what is noticed, and no weight has moved by more than this part of all.
_FAR = 0.1
_MOVED = 0.01
# Inputs whose estimates are kept, in each thread.
_INPUTS = 8
_PACKAGE = __name__.partition(".")[0]


class InaccurateSolve(UserWarning):
    """The steps of a solve do not resolve the input or the dynamics: its states are off by more than `NOTICEABLE_ERROR`, or,
    where the steps are adaptive, by more than `NOTICEABLE_TOLERANCES`.

    Example:
        >>> import warnings
        >>> from odernn import InaccurateSolve
        >>> warnings.simplefilter("error", InaccurateSolve)  # to stop where a solve is too coarse
    """


@dataclass(frozen=True)
class Judged:
    """A solve as far as its error depends on it, to be found again: its input, by identity, and its weights, by value.

    Args:
        x: any view of the input that says which part of which tensor it is.
        setting: all else that must be the same.
        steps: must be the same.
        weights: must be nearly the same.
    """

    x: Tensor
    setting: Hashable
    steps: Tensor
    weights: tuple[Tensor, ...]

    @torch.no_grad()
    def recall(self) -> float | None:
        """An estimate that still holds."""
        entry = _memory.entries.get(self._key)
        if entry is None:
            return None
        base, version, steps, weights, estimate = entry
        if base() is not self.x._base or version != self.x._version or not torch.equal(steps, self.steps):
            return None
        near = all(
            old.shape == new.shape and float(torch.dist(old, new)) <= far for (old, far), new in zip(weights, self.weights)
        )
        return estimate if near else None

    def remember(self, estimate: float) -> None:
        """Keeps an estimate, where it can hold on."""
        _memory.entries.pop(self._key, None)
        near = _FAR * NOTICEABLE_ERROR <= estimate <= NOTICEABLE_ERROR / _FAR
        if self.x._base is None or near or not math.isfinite(estimate):
            return
        weights = tuple((weight.detach().clone(), _MOVED * float(weight.detach().norm())) for weight in self.weights)
        _memory.entries[self._key] = weakref.ref(self.x._base), self.x._version, self.steps, weights, estimate
        if len(_memory.entries) > _INPUTS:
            del _memory.entries[next(iter(_memory.entries))]

    @property
    def _key(self) -> Hashable:
        return id(self.x._base), self.x.storage_offset(), self.x.shape, self.x.stride(), self.setting


class _Memory(threading.local):
    def __init__(self) -> None:
        self.entries: dict[Hashable, tuple[Any, ...]] = {}


_memory = _Memory()


def judged_sequences(start: Tensor, end: Tensor, h0: Tensor) -> Tensor | None:
    """Which sequences to judge, indices into the batch, or None for all.

    Args:
        start, end: x at the ends of the intervals, (..., batch, K, d).
        h0: (..., batch, m).
    """
    batch = h0.shape[-2]
    if batch <= _SEQUENCES:
        return None
    size, roughness, initial = _norms(start), _norms(end - start), _norms(h0.unsqueeze(-2))
    extremes = (size.argmax(), size.argmin(), roughness.argmax(), roughness.argmin(), initial.argmax())
    chosen = set(torch.stack(extremes).tolist())
    chosen.update(range(0, batch, -(-batch // (_SEQUENCES - len(chosen)))))
    return torch.tensor(sorted(chosen), device=h0.device)


def judged_members(weights: tuple[Tensor, ...], h: Tensor) -> Tensor | None:
    """Which members of an ensemble to judge, those with the largest of each of these weights (E, ...), or None for all.

    Members whose state h (E, batch, time, m) did not stay finite are passed over: they are no plausible answer.
    """
    members, batch = h.shape[:2]
    wanted = max(_MEMBERS, int(_SHARE * members * batch / _SEQUENCES))
    if members <= wanted:
        return None
    finite = torch.isfinite(h[:, :, -1]).flatten(1).all(1)
    each = -(-wanted // len(weights))
    chosen = [torch.where(finite, weight.flatten(1).norm(dim=1), -1).topk(each).indices for weight in weights]
    return torch.cat(chosen).unique()


def relative_distance(h: Tensor, finer: Tensor) -> float:
    """The largest |h - finer| / |h| of a sequence, L2 over its times and states, for h (..., time, state); a sequence that is not
    finite counts as 0, one whose finer solution is not as inf."""
    if h.dtype != finer.dtype:
        h, finer = h.to("cpu", torch.float64), finer.to("cpu", torch.float64)
    size = h.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)  # the squares of large states overflow
    h, finer = h / size, finer / size
    distance, length = (torch.linalg.vector_norm(value, dim=(-2, -1), dtype=torch.float64) for value in (h - finer, h))
    relative = (distance / length.clamp_min(1)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return float(torch.where(torch.isfinite(length), relative, 0).max())


def richardson(order: int) -> float:
    """The error of a solution over its distance to the one with half the steps."""
    return 2**order / (2**order - 1)


def warn_if_inaccurate(solver: Solver, estimate: float, dtype: torch.dtype, remedy: str) -> None:
    """Says so, at the line of the caller outside this package. Python shows a text once for each line: the estimate is rounded,
    so that a loop is told once for each power of ten.

    Args:
        remedy: with finer steps, 'Fused(substeps=4)' say.
    """
    if estimate <= NOTICEABLE_ERROR:
        return
    if torch.finfo(dtype).eps > NOTICEABLE_ERROR / 4:
        remedy = f"{dtype} rounds to {torch.finfo(dtype).eps:.0e}: compute in float32"
    else:
        remedy = f"take smaller steps ({remedy}), odernn.solvers.choose_solver, or an adaptive solver (Adaptive())"
    warnings.warn(
        f"the steps of {solver} do not resolve this solve: its states are off by {_size(estimate)} (relative; estimated from "
        f"steps half as long): {remedy}",
        InaccurateSolve,
        stacklevel=_frames_inside(),
    )


def warn_of_tolerance(solver: Solver, off: float, relative: float) -> None:
    """Of an adaptive solve whose states are off by so many tolerances of a step, and by so much of themselves."""
    if off > NOTICEABLE_TOLERANCES:
        warnings.warn(
            f"the tolerance of {solver} holds for its steps, but the states of this solve are off by {_size(relative)} "
            f"(relative; found by small equal steps): take a smaller one (rtol={solver.tolerances[0] / 100:g})",
            InaccurateSolve,
            stacklevel=_frames_inside(),
        )


def _size(error: float) -> str:
    return f"about {10.0 ** round(math.log10(error)):.0e}" if error < 1 else "as much as they are"


def _norms(x: Tensor) -> Tensor:
    """One for each sequence of x (..., batch, K, d), over all the rest."""
    rest = [axis for axis in range(x.ndim) if axis != x.ndim - 3]
    return torch.linalg.vector_norm(x, dim=rest)


def _frames_inside() -> int:
    """The stack level of the first caller that is neither this package nor PyTorch, seen from `warn_if_inaccurate`."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (_PACKAGE, "torch"):
        frame, level = frame.f_back, level + 1
    return level
