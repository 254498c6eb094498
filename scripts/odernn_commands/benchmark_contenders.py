"""The contenders of `benchmark.py`, one on one case in a process of its own.

python scripts/benchmark_contenders.py '{"case": ..., "contender": "fused rk4", "threads": 2, "file": "FILE.npz"}'

It answers with a line of JSON when its libraries are loaded, and then with one for every line it is sent: what the first runs
came to, and from then on the seconds of some more.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odernn import Adaptive, Exact, Fused, SequenceModel, Solver, TorchDiffEq
from odernn.solvers.adaptive import TOLERANCES

from .benchmark_cases import Case, answer, data, model_of, small
from .benchmark_peers import Trial, diffrax_tsit5, lax_scan_rk4, torch_rnn, torch_trial, torchode_tsit5

MIB = 2**20
# Contenders take turns: seconds until the threads of the one before have gone to sleep, and what counts as a short run, of which
# a turn has several, and as a long one, which is not run again before the turns.
SETTLE, SHORT, RUNS_IN_A_TURN, LONG = 0.1, 0.3, 5, 1.0
# Seconds for the first run of a peer, but on the calls that a user writes: one that takes longer is left out.
PATIENCE = 20.0
_PATIENTLY = ("fused", "model(x, t)", "exact", "perturbation_error", "sgemm")
# Substeps to look for the fewest that are as accurate as the default solver.
_SUBSTEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# So much larger an error counts as the same, and so many units of rounding: rounding alone differs by as much.
_SAME, _ROUNDING = 1.2, 20 * torch.finfo(torch.float32).eps
_RTOL, _ATOL = TOLERANCES[torch.float32]


# --- training ---------------------------------------------------------------------------------------------------------


def with_solver(solver: Solver | None, **options: Any) -> Callable[[Case], Trial]:
    return lambda case: torch_trial(case, lambda model, t, x: answer(model, t, x, solver), **options)


def torchdiffeq(method: str, adjoint: bool, rtol: float = _RTOL, atol: float = _ATOL) -> Callable[[Case], Trial]:
    return with_solver(TorchDiffEq(method, rtol, atol, adjoint=adjoint, check=False))


def as_accurate(solver: Callable[[Case, int], Solver]) -> Callable[[Case], Trial]:
    """rk4 with the fewest substeps whose y is no further off than that of the default solver."""

    def prepare(case: Case) -> Trial:
        substeps = _fewest_substeps(case)
        note = f"{substeps} step{'s' * (substeps > 1)} a sample"
        return torch_trial(case, lambda model, t, x: answer(model, t, x, solver(case, substeps)), note=note)

    return prepare


@torch.no_grad()
def _fewest_substeps(case: Case) -> int:
    case = replace(small(case), device="cpu")
    precise, model = model_of(case, torch.float64), model_of(case)
    t, x, _ = data(case, torch.float64)
    exact = answer(precise, t, x, Adaptive(rtol=1e-10, atol=1e-12))
    t, x, _ = data(case)

    def error(solver: Solver | None) -> float:
        return float(torch.dist(answer(model, t, x, solver).double(), exact))

    allowed = max(_SAME * error(None), _ROUNDING * float(exact.norm()))
    return next((n for n in _SUBSTEPS if error(Fused("rk4", n, check=False)) <= allowed), _SUBSTEPS[-1])


def _fused(case: Case, substeps: int) -> Solver:
    return Fused("rk4", substeps)


def _torchdiffeq(adjoint: bool) -> Callable[[Case, int], Solver]:
    def solver(case: Case, substeps: int) -> Solver:
        # Rounding of the times must not cost one more.
        return TorchDiffEq("rk4", adjoint=adjoint, step_size=1.0001 * case.step / substeps, check=False)

    return solver


def dense(prepare: Callable[[Case], Trial]) -> Callable[[Case], Trial]:
    """The same case with a dense W: another model, which has no error to compare."""
    return lambda case: replace(prepare(replace(case, recurrence="dense")), found=None)


def euler_loop(case: Case) -> Trial:
    return with_solver(None, prepared=_plainly)(replace(case, model="discrete_rnn"))


def _plainly(model: SequenceModel) -> SequenceModel:
    """The discrete model in plain steps."""
    model.backend = "torch"  # type: ignore[assignment]
    return model


# Rows of one product: few enough for the caches of a core, enough to fill a GPU.
_FLOOR_ROWS = {"cpu": 4096, "cuda": 2**18}


def sgemm_floor(products: int) -> Callable[[Case], Trial]:
    """The products (rows, m) x (m, m) of rk4 and nothing else: 4 a step forward, and twice 4 backward, for every matrix of a
    stack; on a GPU the roofline. In blocks of rows that caches hold, so that this is the speed of the library's sgemm and not of
    memory."""

    def prepare(case: Case) -> Trial:
        rows = 4 * case.members * case.batch * (case.times - 1) * (2 * case.layers - 1)
        block = min(rows, _FLOOR_ROWS[case.device])
        left, W = torch.randn(block, case.m, device=case.device), torch.randn(case.m, case.m, device=case.device)
        out, square = torch.empty_like(left), torch.empty_like(W)

        def run() -> None:
            for _ in range(rows // block):
                for _ in range(min(products, 2)):
                    torch.mm(left, W, out=out)
                if products == 3:
                    torch.mm(left.T, left, out=square)

        return Trial(run, share=rows // block * block / rows)

    return prepare


def on_a_part(prepare: Callable[[Case], Trial], samples: int) -> Callable[[Case], Trial]:
    """On the first samples: for what takes long on all of them and is linear in their number."""

    def prepare_part(case: Case) -> Trial:
        part = replace(case, times=min(case.times, samples))
        return replace(prepare(part), found=None, share=part.times / case.times)

    return prepare_part


def diagonal(solver: Solver, samples: int = sys.maxsize) -> Callable[[Case], Trial]:
    """A diagonal state-space model."""
    prepare = on_a_part(with_solver(solver), samples)
    return lambda case: prepare(replace(case, model="ssm", recurrence="diagonal"))


# --- an ensemble, forward ---------------------------------------------------------------------------------------------


def together(solver: Solver) -> Callable[[Case], Trial]:
    """All members in one solve. (Every member has the same weights here: that makes no difference to a solver.)"""

    def prepare(case: Case) -> Trial:
        single, model = model_of(case), model_of(case, ensemble=(case.members,))
        model.load_state_dict({name: w.expand(case.members, *w.shape) for name, w in single.state_dict().items()})
        return _forward(case, model, solver, times=1)

    return prepare


def one_by_one(solver: Solver, share: float = 1.0) -> Callable[[Case], Trial]:
    def prepare(case: Case) -> Trial:
        members = max(1, round(case.members * share))
        return replace(_forward(case, model_of(case), solver, times=members), share=members / case.members)

    return prepare


def _forward(case: Case, model: Any, solver: Solver, times: int) -> Trial:
    t, x, _ = data(case)

    @torch.no_grad()
    def run() -> None:
        for _ in range(times):
            answer(model, t, x, solver)

    return Trial(run)


def sampled_perturbations(case: Case) -> Trial:
    """E_m(beta) on the published radii, the same number of draws for each but 0."""
    from analysis.perturbation import PUBLISHED_BETAS, perturbation_error

    model, (t, x, y) = model_of(case), data(case)
    draws = case.members // (len(PUBLISHED_BETAS) - 1)

    def run() -> None:
        perturbation_error(model, y, x, t, PUBLISHED_BETAS, search="sample", draws=draws)

    return Trial(run)


_ADJOINT, _BACKPROP = TorchDiffEq("rk4", adjoint=True, check=False), TorchDiffEq("rk4", adjoint=False, check=False)
# The first of each kind is ours, and what the others are compared with.
CONTENDERS: dict[str, dict[str, Callable[[Case], Trial]]] = {
    "train": {
        "fused rk4": with_solver(Fused("rk4")),
        "fused heun2": with_solver(Fused("heun2")),
        "fused rk4, torch": with_solver(Fused("rk4", backend="torch")),
        "torchdiffeq adjoint rk4": with_solver(_ADJOINT),
        "torchdiffeq backprop rk4": with_solver(_BACKPROP),
        "torchdiffeq adjoint dopri5": torchdiffeq("dopri5", True, 1e-4, 1e-4),
        "torchdiffeq backprop dopri5": torchdiffeq("dopri5", False, 1e-4, 1e-4),
        "diffrax Tsit5": diffrax_tsit5(),
        "torchode Tsit5": torchode_tsit5(),
        "lax.scan rk4": lax_scan_rk4,
        "Python Euler loop": euler_loop,
        "sgemm floor": sgemm_floor(3),
    },
    "call": {
        "model(x, t)": with_solver(None),
        "fused rk4, same error": as_accurate(_fused),
        "torchdiffeq adjoint dopri5": on_a_part(torchdiffeq("dopri5", True), samples=20),
        "torchdiffeq backprop dopri5": torchdiffeq("dopri5", False),
        "torchdiffeq adjoint rk4, same error": as_accurate(_torchdiffeq(True)),
        "torchdiffeq backprop rk4, same error": as_accurate(_torchdiffeq(False)),
        "diffrax Tsit5": diffrax_tsit5(_RTOL, _ATOL),
        "torchode Tsit5": torchode_tsit5(_RTOL, _ATOL),
    },
    "stack": {
        "model(x, t)": with_solver(None),
        "fused rk4, same error": as_accurate(_fused),
        "torchdiffeq adjoint rk4, same error": as_accurate(_torchdiffeq(True)),
        "torchdiffeq backprop rk4, same error": as_accurate(_torchdiffeq(False)),
        "torchdiffeq adjoint rk4": with_solver(_ADJOINT),
    },
    "structure": {
        "fused rk4": with_solver(Fused("rk4")),
        "fused rk4, dense W": dense(with_solver(Fused("rk4"))),
        "model(x, t)": with_solver(None),
        "model(x, t), dense W": dense(with_solver(None)),
        "torchdiffeq adjoint rk4": with_solver(_ADJOINT),
        "torchdiffeq backprop rk4": with_solver(_BACKPROP),
    },
    "wide": {
        "fused rk4": with_solver(Fused("rk4")),
        "model(x, t)": with_solver(None),
        "torchdiffeq adjoint rk4": with_solver(_ADJOINT),
        "torchdiffeq backprop rk4": with_solver(_BACKPROP),
        "sgemm floor": sgemm_floor(3),
    },
    "map": {
        "model(x, t)": with_solver(None),
        "torch.nn.RNN": torch_rnn,
        "plain loop": with_solver(None, prepared=_plainly),
    },
    "long": {
        "fused rk4": with_solver(Fused("rk4")),
        "model(x, t)": with_solver(None),
    },
    "exact": {
        "exact": diagonal(Exact()),
        "exact, torch": diagonal(Exact(backend="torch"), samples=500),
        "torchdiffeq adjoint rk4": diagonal(_ADJOINT, samples=100),
        "torchdiffeq backprop rk4": diagonal(_BACKPROP, samples=100),
    },
    "ensemble": {
        "fused rk4": together(Fused("rk4")),
        "fused rk4, one by one": one_by_one(Fused("rk4")),
        "torchdiffeq rk4, one by one": one_by_one(_BACKPROP, share=0.02),
        "sgemm floor": sgemm_floor(1),
    },
    "perturbation": {
        "perturbation_error": sampled_perturbations,
        "torchdiffeq rk4, one by one": one_by_one(_BACKPROP, share=0.02),
    },
    "precision": {},
}
# What errors are errors from, in double precision: a tight solve, or the plain steps of a map.
_TIGHT = TorchDiffEq("dopri5", 1e-9, 1e-11, adjoint=False, check=False)
_CPU_ONLY = ("diffrax", "lax.scan")
_GROWTH = ("fused rk4", "sgemm floor")


def contenders(case: Case) -> list[str]:
    """Who is timed on a case; some may not be installed, see `benchmark_peers.missing`."""
    names = _GROWTH if case.name.startswith("growth") else CONTENDERS[case.kind]
    return [name for name in names if case.device == "cpu" or not name.startswith(_CPU_ONLY)]


def reference(case: Case) -> dict[str, np.ndarray]:
    case = replace(case, device="cpu")
    if case.kind == "precision":
        from .benchmark_precision import exact_states

        return {"h": exact_states(case)}
    solver, prepared = (None, _plainly) if case.kind == "map" else (_TIGHT, lambda model: model)
    trial = with_solver(solver, prepared=prepared, dtype=torch.float64)(case)
    assert trial.found is not None
    return trial.found()


def memory(device: str) -> float:
    """Memory of the device in use, MiB: on the CPU what is resident (where the system tells, else its peak)."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / MIB
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory(device)
    return int(statm.read_text().split()[1]) * resource.getpagesize() / MIB


def peak_memory(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


class OutOfPatienceError(Exception):
    """A first run that took longer than a peer's may."""


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Ends what takes longer, where the system can (and not before a call into a compiled library comes back)."""

    def end(*_: Any) -> None:
        raise OutOfPatienceError

    if seconds == float("inf") or not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def patience_with(case: Case, contender: str) -> float:
    return float("inf") if case.kind == "call" or contender.startswith(_PATIENTLY) else PATIENCE


def main() -> None:
    task = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # the one limit that all libraries keep to
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["threads"]])
    torch.set_num_threads(task["threads"])
    case = Case(**task["case"])
    if task["contender"] == "reference":
        np.savez(task["file"], **reference(case))  # type: ignore[arg-type]
        return
    print("{}", flush=True)
    if not sys.stdin.readline():
        return
    if case.kind == "precision":
        from .benchmark_precision import points

        print(json.dumps(points(case, task["contender"], task["file"])), flush=True)
        return
    trial = CONTENDERS[case.kind][task["contender"]](case)
    before = memory(case.device)

    def timed() -> float:
        start = time.perf_counter()
        trial.run()
        if case.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / trial.share

    try:
        with patience(patience_with(case, task["contender"])):
            answer: dict[str, Any] = {"first_s": timed() * trial.share, "share": trial.share, "note": trial.note}
    except OutOfPatienceError:
        print(json.dumps({"left_out": f"> {PATIENCE:g} s"}), flush=True)
        return
    if answer["first_s"] < LONG:
        timed()
    answer |= {"memory_mib": max(0.0, peak_memory(case.device) - before), "peak_mib": peak_memory(case.device)}
    if trial.found is not None and task["file"]:
        np.savez(task["file"], **trial.found())  # type: ignore[arg-type]
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        time.sleep(SETTLE)
        seconds = [timed()]
        if seconds[0] * trial.share < SHORT:
            seconds = [timed() for _ in range(RUNS_IN_A_TURN)]  # the first one woke threads and caches up
        print(json.dumps({"seconds": seconds}), flush=True)


def as_task(case: Case, contender: str, threads: int, file: str) -> str:
    return json.dumps({"case": asdict(case), "contender": contender, "threads": threads, "file": file})


if __name__ == "__main__":
    main()
