"""How the functions of this folder are compiled."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

from numba import njit

from .cache import keep_on_disk

# Only contraction to fused multiply-adds: nnan and ninf would let a diverged state come out as a plausible number.
FLAGS = ("contract", "nsz")
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": set(FLAGS), "error_model": "numpy"}
inner = njit(**OPTIONS)
# What works on single vectors: without it a call costs more than the work.
INLINE_OPTIONS: Any = {**OPTIONS, "forceinline": True}
inline = njit(**INLINE_OPTIONS)


class Kernel(NamedTuple):
    """One compiled function in two forms. On one thread the parallel form still opens a parallel region, and when that and
    PyTorch's differ in their number of threads OpenMP builds its threads again at every change, which takes longer than small
    solves."""

    parallel: Callable[..., None]
    serial: Callable[..., None]


def kernel(function: Any) -> Kernel:
    """A function that runs through its items with `prange`. (Which counts in unsigned integers, and these make floats of signed
    ones: it converts its items first.)"""
    serial = FunctionType(function.__code__, function.__globals__, function.__name__)
    serial.__qualname__ = f"{function.__qualname__}_serial"  # the disk cache goes by this name
    return Kernel(keep_on_disk(njit(**OPTIONS, parallel=True)(function)), keep_on_disk(njit(**OPTIONS)(serial)))
