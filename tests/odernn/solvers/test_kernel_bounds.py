"""Compiled kernels never touch what lies beside their arrays: each array ends, or begins, at a page that nobody may read."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, itertools, mmap, sys
import numpy as np, torch
from odernn import Adaptive, ContinuousRNN, Exact, Fused, StateSpaceModel, paths
from odernn.solvers.numba import backend
from odernn.solvers.numba.plan import SET_STRIDE

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
at_end = sys.argv[1] == "end"
kept, back = [], []

def guarded(array):
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    offset = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
    copy = np.frombuffer(memory, array.dtype, array.size, offset)
    copy[:] = array
    kept.append((memory, copy))
    return copy

plain = backend._flat
def flat(tensor):
    array = plain(tensor)
    if not array.size:
        return array
    for known, copy in back:  # two names of one array stay one
        if known.ctypes.data == array.ctypes.data and known.size == array.size:
            return copy
    copy = guarded(array)
    back.append((array, copy))
    return copy
backend._flat = flat
run = backend._run
def run_and_copy_back(kernel, plan, *arguments):
    run(kernel, plan, *arguments)
    for array, copy in back:
        array[:] = copy
    back.clear()
    kept.clear()
backend._run = run_and_copy_back

torch.set_num_threads(1)
for dtype in (torch.float32, torch.float64):
    structures = (("dense", "direct"), ("diagonal", "exp"), ("complex", "exp"))
    for (recurrence, parameterization), m, batch, times, d, ensemble in itertools.product(
        structures, (1, 2, 3, 7, 17), (1, 5, 19), (2, 4), (1, 3), ((), (2,))
    ):
        if recurrence == "complex" and m % 2:
            m += 1
        cls = StateSpaceModel
        model = cls(d, m, 1, "tanh", recurrence, parameterization, ensemble=ensemble, dtype=dtype)
        t = torch.cumsum(0.1 + 0.1 * torch.rand(times, dtype=torch.float64), 0)
        x = torch.randn(batch, times, d, dtype=dtype, requires_grad=True)
        for interpolation in ("linear", "hold", "jumps"):
            path = paths.interpolate(t, x, "linear")
            if interpolation == "hold":
                path = paths.hold(t, x)
            elif interpolation == "jumps":
                path = paths.Path(t, "jumps", 2 * x[..., :-1, :], x[..., 1:, :] ** 2)
            slow = Fused(backend="torch", check=False), Exact(backend="torch"), Exact(backend="torch")
            for solver, plain_solver in zip((Fused(check=False), Exact(), Adaptive(check=False)), slow):
                found = []
                for each in (solver, plain_solver):
                    h = model.solve(path, t, "zero", solver=each).h
                    found.append((h.detach(), torch.autograd.grad(h.square().sum(), x, retain_graph=True)[0]))
                for a, b in zip(*found):
                    assert torch.allclose(a, b, rtol=1e-3, atol=1e-4), (recurrence, m, batch, times, d, ensemble, solver)
# Rows that are padded off the stride of the caches.
for dtype, (recurrence, parameterization) in itertools.product((torch.float32, torch.float64), structures):
    m = SET_STRIDE // torch.finfo(dtype).bits * 8
    model = ContinuousRNN(1, m, 1, "tanh", recurrence, parameterization, seed=0, dtype=dtype)
    x = torch.randn(5, 3, 1, dtype=dtype, requires_grad=True)
    h = model.solve(paths.linear(torch.arange(3.0), x), torch.arange(3.0), "zero", solver=Fused(check=False)).h
    torch.autograd.grad(h.square().sum(), [x, *(weight for name, weight in model.named_parameters() if name != "c")])
print("in bounds")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect of Linux")
@pytest.mark.parametrize("side", ["end", "start"])
def test_no_kernel_touches_the_pages_around_its_arrays(side):
    result = subprocess.run([sys.executable, "-c", PROGRAM, side], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"exit {result.returncode} (-11: an access outside)\n{result.stderr[-2000:]}"
    assert "in bounds" in result.stdout
