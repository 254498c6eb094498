"""The kernels compiled for GPUs that need not be there: what each takes of a multiprocessor, and an estimate of its time.

    python -m odernn.solvers.triton.ahead_of_time

prints a table. Registers, stack and shared memory are those of the machine code. The time per step of a program (16 sequences; as
many programs run at once as a GPU has multiprocessors), of adaptive kernels per stage, is an ESTIMATE, nothing was run:
`estimated_cycles`.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from ..adaptive import PAIRS
from ..fused import TABLEAUX
from . import adaptive
from . import backward as adjoint_kernel
from . import forward as kernel
from .launch import adaptive_settings, backward_settings, forward_settings, pair_settings

# Clocks in GHz and names, by compute capability: the boost clocks of the data sheets.
GPUS = {80: ("A100", 1.41), 90: ("H100", 1.755)}
KERNELS = ("forward", "stages", "backward")
ADAPTIVE_KERNELS = ("adaptive forward", "adaptive stages", "adaptive backward")
WIDTHS = (16, 32, 64, 128)
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Of arguments that are neither whole numbers nor tensors in single precision.
_TYPES = {"lengths": "*fp64", "places": "*i32", "counts": "*i64", "rtol": "fp32", "atol": "fp32"}
_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
# Cycles of instructions that others wait for by a barrier, by microbenchmarks such as those of Z. Jia et al., arXiv:1804.06826.
# (Reads of global memory are asked for a step ahead, and count as short.)
_WAITS = {"LDS": 30, "LDSM": 33, "LDG": 35, "BAR": 30, "MUFU": 20, "F2F": 20, "S2R": 20, "S2UR": 20}
# Cycles between two tensor-core products m16n8k16 of bfloat16 on one of the four parts of a multiprocessor, at most 1024 (A100)
# and 2048 (H100, of which about 60% are seen with these instructions) multiplications a cycle on all four.
_PRODUCT_CYCLES = {80: 8.0, 90: 6.5}


@dataclass(frozen=True)
class Compiled:
    """A kernel in machine code.

    Args:
        name: one of `KERNELS`: 'forward', its form that keeps the stages, 'backward'; or of `ADAPTIVE_KERNELS`.
        capability: 80 or 90.
        registers, stack: of a thread (bytes for the stack, where registers spill to).
        shared: bytes of a program.
        seconds: of CPU time to compile it.
        products: tensor-core instructions of a warp in one step; of an adaptive kernel in one stage.
        cycles: of one step or stage, estimated.
    """

    name: str
    m: int
    capability: int
    warps: int
    rows: int
    registers: int
    stack: int
    shared: int
    seconds: float
    products: int
    cycles: float

    @property
    def nanoseconds(self) -> float:
        """Of one step, or stage of an adaptive kernel, estimated."""
        return self.cycles / GPUS[self.capability][1]


def compile_kernel(
    name: str, m: int, capability: int, method: str = "rk4", substeps: int = 1, activation: str = "tanh"
) -> Compiled:
    """A kernel as a solve with these settings launches it."""
    function, settings = _kernel(name, m, method, substeps, activation)
    options = {key: settings[key] for key in _OPTIONS}
    before = _cpu_seconds()
    with _empty_cache() as folder:
        compiled = triton.compile(
            _source(function, settings), target=triton.backends.compiler.GPUTarget("cuda", capability, 32), options=options
        )
        seconds = _cpu_seconds() - before
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", _cuobjdump("-res-usage", cubin))}
        step = _step(_instructions(_cuobjdump("-sass", cubin)))
    return Compiled(
        name, m, capability, options["num_warps"], settings["ROWS"], usage["REG"], usage["STACK"] + usage["LOCAL"],
        compiled.metadata.shared, seconds, sum(one.operation == "HMMA" for one in step),
        estimated_cycles(step, options["num_warps"], capability),
    )  # fmt: skip


def _kernel(name: str, m: int, method: str, substeps: int, activation: str) -> tuple[Any, dict[str, Any]]:
    if name == "adaptive forward":
        return adaptive.forward, adaptive_settings(PAIRS[method], "jumps", activation, m)
    if name in ADAPTIVE_KERNELS:
        function = adaptive.again if name == "adaptive stages" else adaptive.backward
        return function, pair_settings(PAIRS[method], activation, m)
    if name == "backward":
        return adjoint_kernel.backward, backward_settings(TABLEAUX[method], substeps, m)
    return kernel.forward, forward_settings(TABLEAUX[method], substeps, activation, m, keep=name == "stages")


@dataclass(frozen=True)
class Instruction:
    """One line of machine code, with what its control bits say to the scheduler of a warp.

    Args:
        stall: cycles until the next instruction of the warp.
        waits: barriers that must be clear before it, as bits.
        sets: the barriers, of six, that are clear when its result is there, and when its operands are read; 7 for none.
    """

    address: int
    operation: str
    target: int | None
    stall: int
    waits: int
    sets: tuple[int, int]


def estimated_cycles(step: list[Instruction], warps: int, capability: int) -> float:
    """Cycles of one step, the largest of three: what one warp takes by itself, by the stalls and waits that the compiler wrote
    into its instructions; the instructions of all warps, of which each quarter of a multiprocessor issues one a cycle; and their
    products on its tensor core. What other programs on the same multiprocessor take is not in it."""
    now, clear = 0.0, [0.0] * 8
    for one in step:
        now = max([now, *(clear[barrier] for barrier in range(6) if one.waits >> barrier & 1)])
        for barrier in one.sets:
            clear[barrier] = max(clear[barrier], now + _WAITS.get(one.operation, 0))
        clear[7] = 0.0
        now += max(one.stall, 1) + (_WAITS["BAR"] if one.operation == "BAR" else 0)
    products = sum(one.operation == "HMMA" for one in step) * _PRODUCT_CYCLES[capability]
    return max(now, max(products, len(step)) * max(1.0, warps / 4))


def _instructions(listing: str) -> list[Instruction]:
    found = []
    pattern = r"/\*([0-9a-f]{4,})\*/\s+(.*?);\s*/\* 0x[0-9a-f]{16} \*/\s*/\* 0x([0-9a-f]{16}) \*/"
    for address, text, control in re.findall(pattern, listing):
        words = [word for word in text.split() if not word.startswith("@")]
        target = re.search(r"0x([0-9a-f]+)", text) if words[0] == "BRA" else None
        bits = int(control, 16)
        sets = bits >> 46 & 7, bits >> 49 & 7
        to = int(target.group(1), 16) if target else None
        found.append(Instruction(int(address, 16), words[0].split(".")[0], to, bits >> 41 & 15, bits >> 52 & 63, sets))
    return found


def _step(program: list[Instruction]) -> list[Instruction]:
    """The body of the innermost loop with products in it, which is one step, or one stage of an adaptive kernel."""
    bodies = [
        [one for one in program if end.target <= one.address <= end.address]
        for end in program
        if end.target is not None and end.target < end.address
    ]
    return min((body for body in bodies if any(one.operation == "HMMA" for one in body)), key=len)


def _source(function: Any, settings: dict[str, Any]) -> Any:
    """The kernel with the types that a launch gives it: numbers are never specialised, tensors start at multiples of 16 bytes."""
    parameters = {one.name: one for one in function.params}
    signature = {
        name: "constexpr" if one.is_constexpr else _TYPES.get(name, "i32" if one.do_not_specialize else "*fp32")
        for name, one in parameters.items()
    }
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind[0] == "*"}
    constants = {name: settings[name] for name, one in parameters.items() if one.is_constexpr}
    return triton.compiler.ASTSource(function, signature, constants, aligned)


def _cuobjdump(option: str, cubin: Path) -> str:
    return subprocess.run([TOOLS / "cuobjdump", option, cubin], capture_output=True, text=True, check=True).stdout


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@contextmanager
def _empty_cache() -> Iterator[Path]:
    """Triton's cache in a folder of its own, so that a kernel is compiled anew."""
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def main() -> None:
    print("kernel               m   for   warps  rows  registers  stack  shared    compiled in   per step or stage (estimate)")
    for name in (*KERNELS, *ADAPTIVE_KERNELS):
        for m in WIDTHS:
            for capability in GPUS:
                one = compile_kernel(name, m, capability, "dopri5" if name in ADAPTIVE_KERNELS else "rk4")
                print(
                    f"{name:17}{m:5}  {GPUS[capability][0]}  {one.warps:5}{one.rows:6}{one.registers:11}{one.stack:7}"
                    f"{one.shared:8}{one.seconds:12.1f} s {one.cycles:9.0f} cycles {one.nanoseconds:6.0f} ns"
                )


if __name__ == "__main__":
    main()
