"""How the functions of this folder are compiled."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite.binding
from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from .cache import keep_on_disk

# Only contraction to fused multiply-adds: nnan and ninf would let a diverged state come out as a plausible number.
FLAGS = ("contract", "nsz")
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": set(FLAGS), "error_model": "numpy"}


class _Part(JITCodeLibrary):
    """A function that only kernels call. They take in its intermediate code; machine code of its own, which numba would make as
    well, takes a third of the time of a first run, and nobody calls it."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        # Numba writes into these variables.
        environments = [str(one) for one in self._final_module.global_variables if "NumbaEnv" in one.name]
        self._codegen._add_module(llvmlite.binding.parse_assembly("\n".join(environments)))
        self._finalized = True


class _PartCompiler(Compiler):
    def compile_extra(self, func: Any) -> Any:
        self.state.library = _Part(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


_PART_OPTIONS: Any = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _PartCompiler}
inner = njit(**_PART_OPTIONS)
# What works on single vectors: without it a call costs more than the work.
INLINE_OPTIONS: Any = {**_PART_OPTIONS, "forceinline": True}
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
    options: Any = {**OPTIONS, "no_cfunc_wrapper": True}
    return Kernel(keep_on_disk(njit(**options, parallel=True)(function)), keep_on_disk(njit(**options)(serial)))
