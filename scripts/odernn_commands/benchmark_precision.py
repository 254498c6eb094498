"""The work-precision diagram of `benchmark.py`: error against time of forward solves in double precision, of our solvers without
the comparison with small steps, which no other library makes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odernn import Adaptive, Fused, Solver, TorchDiffEq

from .benchmark_cases import Case, data, model_of, weights_of
from .benchmark_peers import diffrax_states, torchode_states

TOLERANCES = tuple(10.0**-k for k in range(3, 10))
# atol over rtol.
_ABSOLUTE = 1e-2
# Substeps of a method without a tolerance, in place of the tolerances.
_SUBSTEPS = (1, 2, 4, 8, 16, 32, 64)
# Runs of a setting; of one that takes longer than so many seconds a single one.
RUNS, SLOW = 5, 0.5

Solve = Callable[[], np.ndarray]


def _problem(case: Case) -> tuple[Tensor, Tensor]:
    """t and x, with t to the last digit: rounded to single precision it would move the kinks by more than the errors here."""
    return case.step * torch.arange(case.times, dtype=torch.float64), data(case, torch.float64)[1]


def _own(solver_of: Callable[[float], Solver]) -> Callable[[Case, float], Solve]:
    def prepare(case: Case, setting: float) -> Solve:
        model: Any = model_of(case, torch.float64)
        t, x = _problem(case)
        solver = solver_of(setting)

        @torch.no_grad()
        def solve() -> np.ndarray:
            return model.respond(x, t, "zero", solver=solver).solution.h.numpy()

        return solve

    return prepare


def _diffrax(case: Case, rtol: float) -> Solve:
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    weights = {name: jnp.asarray(w.detach().numpy()) for name, w in weights_of(model_of(case, torch.float64)).items()}
    x = jnp.asarray(_problem(case)[1].numpy())
    states = jax.jit(lambda weights, x: diffrax_states(case, weights, x, rtol, _ABSOLUTE * rtol))
    return lambda: np.swapaxes(np.asarray(jax.block_until_ready(states(weights, x))), 0, 1)


def _torchode(case: Case, rtol: float) -> Solve:
    model = model_of(case, torch.float64)
    t, x = _problem(case)

    @torch.no_grad()
    def solve() -> np.ndarray:
        return torchode_states(case, model, t, x, rtol, _ABSOLUTE * rtol).numpy()

    return solve


def _scipy(method: str, by_interval: bool = False) -> Callable[[Case, float], Solve]:
    """SciPy's solve_ivp for all sequences at once, as a user would call it; or from sample to sample, which is the reference."""

    def prepare(case: Case, rtol: float) -> Solve:
        from scipy.integrate import solve_ivp

        weights = {name: w.detach().numpy() for name, w in weights_of(model_of(case, torch.float64)).items()}
        t, x = (value.numpy() for value in _problem(case))
        drive = x @ weights["U"].T + weights["b"]
        W, shape = weights["W"].T, (case.batch, case.m)

        def rate(s: float, h: np.ndarray) -> np.ndarray:
            k = min(int(s / case.step), case.times - 2)
            fraction = (s - t[k]) / (t[k + 1] - t[k])
            return np.tanh(h.reshape(shape) @ W + (1 - fraction) * drive[:, k] + fraction * drive[:, k + 1]).ravel()

        def solve() -> np.ndarray:
            h, tolerances = np.zeros(case.batch * case.m), {"rtol": rtol, "atol": _ABSOLUTE * rtol}
            if not by_interval:
                return solve_ivp(rate, (t[0], t[-1]), h, method, t_eval=t, **tolerances).y.T.reshape(-1, *shape).swapaxes(0, 1)
            states = [h]
            for k in range(case.times - 1):
                left, right = drive[:, k], drive[:, k + 1]

                def inside(u: float, h: np.ndarray, left: Any = left, right: Any = right) -> np.ndarray:
                    return np.tanh(h.reshape(shape) @ W + (1 - u) * left + u * right).ravel() * case.step

                states.append(solve_ivp(inside, (0.0, 1.0), states[-1], method, **tolerances).y[:, -1])
            return np.stack(states).reshape(-1, *shape).swapaxes(0, 1)

        return solve

    return prepare


METHODS: dict[str, Callable[[Case, float], Solve]] = {
    "Adaptive dopri5": _own(lambda rtol: Adaptive("dopri5", rtol, _ABSOLUTE * rtol, check=False)),
    "Adaptive tsit5": _own(lambda rtol: Adaptive("tsit5", rtol, _ABSOLUTE * rtol, check=False)),
    "fused rk4": _own(lambda substeps: Fused("rk4", int(substeps), check=False)),
    "torchdiffeq dopri5": _own(lambda rtol: TorchDiffEq("dopri5", rtol, _ABSOLUTE * rtol, adjoint=False, check=False)),
    "diffrax Tsit5": _diffrax,
    "torchode Tsit5": _torchode,
    "scipy RK45": _scipy("RK45"),
}
# Its own tolerance; samples are at multiples of the step to rounding, so that its rates have no kinks inside.
_REFERENCE = _scipy("DOP853", by_interval=True), 1e-12


def exact_states(case: Case) -> np.ndarray:
    """h of DOP853 from sample to sample."""
    return _REFERENCE[0](case, _REFERENCE[1])()


def points(case: Case, method: str, file: str) -> list[dict[str, float]]:
    """Of every setting its seconds and |h - h'| / |h'|, L2 over all states, with h' from this file."""
    with np.load(file) as reference:
        exact = reference["h"]
    found = []
    for setting in _SUBSTEPS if method.startswith("fused") else TOLERANCES:
        solve = METHODS[method](case, setting)
        error = float(np.linalg.norm(solve() - exact) / np.linalg.norm(exact))
        seconds: list[float] = []
        while len(seconds) < RUNS and not (seconds and seconds[0] > SLOW):
            start = time.perf_counter()
            solve()
            seconds.append(time.perf_counter() - start)
        found.append({"setting": setting, "median_s": statistics.median(seconds), "error": error})
    return found
