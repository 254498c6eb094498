"""Random models, inputs and times, solved by every solver that takes them: each agrees with an independent tight solve in double
precision, or warns or refuses. The reference is SciPy's DOP853 on times from 0, from the same rounded weights and samples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odernn import ContinuousRNN, Exact, Fused, InaccurateSolve, StateSpaceModel, TorchDiffEq
from odernn.activations import ACTIVATIONS
from odernn.parameterizations import PARAMETERIZATIONS
from odernn.paths import interpolate
from odernn.recurrences import RECURRENCES
from odernn.solvers import NOTICEABLE_ERROR, DivergedSolve, choose_solver
from odernn.solvers.resolution import NOTICEABLE_TOLERANCES
from tests.problems import dop853

from .campaign import Outcomes

F64 = torch.float64
# What an exact solver may be off by, relative L2 over the states of a sequence.
_TIGHT = {F64: 1e-5, torch.float32: 2e-4}
# What a chosen one may be, over all states: the tolerance it was chosen for, and some room for what it was compared with.
_CHOSEN = 1.1e-5
# An adaptive solve may be off by so many tolerances of a step before it must say so, with room for its comparison.
_TOLERANCES = 1.1 * NOTICEABLE_TOLERANCES
_ADAPTIVE = ("dopri5", "dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2")
# Room for the estimate of a fixed-step solver, which is one of size.
_ROOM = 3.0


@dataclass(frozen=True)
class Solvers:
    """Comparisons of solvers; one try takes one model through all that apply."""

    name: str = "solvers"
    full: int = 300
    short: int = 12

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        for index in range(size):
            _compare(seed, index, outcomes)
        return outcomes


def _compare(seed: int, index: int, outcomes: Outcomes) -> None:
    rng = np.random.default_rng([seed, index])
    dtype = F64 if rng.random() < 0.6 else torch.float32
    model, kind = _model(rng, dtype)
    t, x, interpolation = _input(rng, dtype, model.input_size)
    h0 = _initial(rng, model, x.shape[0])
    path = interpolate(t, x, interpolation)
    settings = f"--seed {seed}, try {index}: {kind}, {str(dtype)[6:]}, {interpolation}, t from {float(t[0]):g}"

    double = type(model)(**_arguments(model), dtype=F64)
    double.load_state_dict(model.state_dict())
    origin = t[0]
    exact_path = interpolate(t - origin, x.double(), interpolation)
    try:
        with np.errstate(all="ignore"):
            reference = dop853(double, exact_path, t - origin, h0.double(), 1e-9)
    except (ValueError, RuntimeError, KeyError):
        outcomes.count("reference", "none")
        return
    if not torch.isfinite(reference).all() or reference.abs().max() > 1e6:
        outcomes.count("reference", "none")
        return

    field = model.field()
    rtol = float(rng.choice([1e-3, 1e-5, 1e-7] if dtype == F64 else [1e-3, 1e-4, 1e-5]))
    adaptive = TorchDiffEq(str(rng.choice(_ADAPTIVE)), rtol, 0.1 * rtol, bool(rng.random() < 0.5))
    substeps = int(rng.choice([1, 2, 4]))
    solvers = [Fused("rk4", substeps), Fused(str(rng.choice(["heun2", "bosh3"])), substeps, "torch"), adaptive]
    solvers.append(TorchDiffEq(str(rng.choice(["rk4", "midpoint", "heun3"])), adjoint=False))
    if Exact().supports(field):
        solvers += [Exact(), Exact(backend="torch")]
    try:
        solvers.append(choose_solver(field, path, t, h0))
    except DivergedSolve:
        outcomes.count("chosen", "refused")
    for position, solver in enumerate(solvers):
        row = type(solver).__name__
        if solver is adaptive:
            row = "adaptive"
        elif position > 3 and not isinstance(solver, Exact):
            row = "chosen"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                h = solver.solve(field, path, t, h0).h.detach()
            except (DivergedSolve, ValueError):
                outcomes.count(row, "refused")
                continue
        if not torch.isfinite(h).all():
            outcomes.count(row, "not finite")  # `check_finite` is the one who says so
            continue
        error, allowed = _error(h.double(), reference), _TIGHT[dtype]
        if row == "chosen":
            distance = torch.linalg.vector_norm(h.double() - reference)
            error, allowed = float(distance / torch.linalg.vector_norm(reference)), _CHOSEN
        elif row == "adaptive":
            error, allowed = _error(h.double(), reference, rtol, 0.1 * rtol), _TOLERANCES
        elif not isinstance(solver, Exact):
            allowed = _ROOM * NOTICEABLE_ERROR
        if error <= allowed:
            outcomes.count(row, "agreed")
        elif any(issubclass(warning.category, InaccurateSolve) for warning in said):
            outcomes.count(row, "warned")
        else:
            outcomes.count(row, "SILENT", f"off by {error:.1e}: {solver}, {settings}")


def _error(h: Tensor, reference: Tensor, rtol: float = 1.0, atol: float | None = None) -> float:
    """The largest of a sequence, in units of rtol |reference| + atol, RMS over its states."""
    distance, size = (value.square().mean((-2, -1)).sqrt() for value in (h - reference, reference))
    if atol is None:  # a sequence at rest has no size of its own
        return float((distance / size.clamp_min(1e-3 * float(size.max()) + 1e-12)).max())
    return float((distance / (rtol * size + atol)).max())


def _model(rng: np.random.Generator, dtype: torch.dtype) -> tuple[ContinuousRNN | StateSpaceModel, str]:
    cls = ContinuousRNN if rng.random() < 0.7 else StateSpaceModel
    recurrence = str(rng.choice(list(RECURRENCES)))
    parameterization = "direct" if recurrence == "dense" else str(rng.choice(list(PARAMETERIZATIONS)))
    activation = str(rng.choice(list(ACTIVATIONS)))
    m = int(rng.choice([2, 4, 6, 10]))
    model = cls(
        int(rng.choice([1, 3])), m, 1, activation, recurrence, parameterization, seed=int(rng.integers(1000)), dtype=dtype
    )
    with torch.no_grad():
        layer = model.layer_weights[0]
        if rng.random() < 0.5 and layer.b is not None:
            layer.b.copy_(torch.from_numpy(rng.normal(size=m)))
        layer.U.mul_(float(rng.choice([0.3, 1.0, 3.0])))
        if recurrence == "dense":  # rates from slow to far too fast for the steps, all stable
            rates = -np.exp(rng.uniform(-3, rng.choice([0.0, 2.0, 5.0]), m))
            Q, _ = np.linalg.qr(rng.normal(size=(m, m)))
            model.set_matrix(torch.from_numpy(Q @ np.diag(rates) @ Q.T))
    return model, f"{cls.__name__} {activation} {recurrence} {parameterization} m={m}"


def _arguments(model: ContinuousRNN | StateSpaceModel) -> dict:
    config = model.config()
    return {
        **{name: config[name] for name in ("input_size", "hidden_size", "output_size", "activation", "recurrence")},
        "parameterization": model.parameterization,
    }


def _input(rng: np.random.Generator, dtype: torch.dtype, d: int) -> tuple[Tensor, Tensor, str]:
    times, batch = int(rng.choice([2, 9, 25])), int(rng.choice([1, 3]))
    step = float(rng.choice([0.05, 0.2, 0.5]))
    steps = step * (np.ones(times - 1) if rng.random() < 0.4 else rng.uniform(0.2, 1.8, times - 1))
    t = float(rng.choice([0.0, -3.0, 1e4, 1.7e9])) + np.concatenate([[0], np.cumsum(steps)])
    phase, speed = rng.uniform(0, 6, (batch, 1, d)), float(rng.choice([0.5, 2.0, 8.0]))
    x = np.sin(speed * (t - t[0])[None, :, None] + phase) * float(rng.choice([0.3, 1.0, 5.0]))
    if rng.random() < 0.3:
        x = x + rng.normal(size=x.shape)
    return torch.from_numpy(t), torch.from_numpy(x).to(dtype), str(rng.choice(["linear", "hold"]))


def _initial(rng: np.random.Generator, model: ContinuousRNN | StateSpaceModel, batch: int) -> Tensor:
    kind = rng.choice(["zero", "rest", "given"])
    if kind == "zero":
        return model.c.new_zeros(batch, model.hidden_size).detach()
    if kind == "rest":
        rest = model.rest_state().detach()
        if torch.isfinite(rest).all():
            return rest.expand(batch, -1)
    return torch.from_numpy(rng.normal(size=(batch, model.hidden_size))).to(model.c.dtype)


CAMPAIGNS = (Solvers(),)
