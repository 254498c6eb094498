"""Errors between a target and an ensemble of models, as functions of the ensemble that a search maximises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odernn import losses
from odernn.ensembles import replicate
from odernn.models import SequenceModel
from odernn.paths import Interpolation
from odernn.solvers import Exact, Solver, TorchDiffEq, automatic
from odernn.solvers.fused import Fused
from targets import Functional, Kernel, grids

from ..linear.theory import KernelL1, KernelSobolev, linear_kernel
from .balls import slowest_corner
from .curve import Array

Target = Functional | Kernel | Tensor | Callable[[Tensor, Tensor], Tensor]

# Bytes that the states of one ensemble solve may take; larger ensembles go in chunks.
_MEMORY = 2**29
# Tensors of the size of the states that live at once: without gradients a solver's list, its stack and the readout's copy, with
# gradients what backpropagation keeps of the four stages of a rk4 step, or of a recursion (Exact, Fused).
_COPIES_VALUE, _COPIES_GRADIENT, _COPIES_RECURSION = 5, 30, 8
# rk4 is stable for |rate| step < 2.78; accurate steps are shorter.
_RK4_REACH = 1.5
# Steps are halved until E(0) / |H| is known to this; E(0) itself is of a solve to these rtol and atol in double precision.
_ACCURACY = 1e-4
_TIGHT = 1e-8, 1e-10
# Steps per sample at most: a perturbation that needs more makes rates that the samples of x do not resolve anyway.
_MAX_STEPS_PER_SAMPLE = 8

# Error names, each with the power that `PerturbationCurve.relative` takes the root of.
ERRORS: dict[str, int] = {"mse": 2, "relative_l2": 1, "time_weighted": 2, "sup": 1, "kernel_l1": 1, "kernel_sobolev": 1}
# Those of linear kernels, which need no inputs.
_OF_KERNELS: dict[str, type[KernelL1] | type[KernelSobolev]] = {"kernel_l1": KernelL1, "kernel_sobolev": KernelSobolev}


@dataclass(frozen=True)
class Objective:
    """The error E to be maximised.

    Args:
        evaluate: E of every member of an ensemble, (n,).
        scale: E of the model that answers 0.
        horizon: T.
        error: its name.
        member_bytes: of one member's states.
        lean: whether backpropagation keeps no more than a recursion does.
        initial: E of the unperturbed model by a solver that keeps to tight tolerances, where `evaluate` need not be as accurate;
            None where it is.
    """

    evaluate: Callable[[SequenceModel], Tensor]
    scale: float
    horizon: float
    error: str
    member_bytes: int
    lean: bool
    initial: float | None = None

    def chunk(self, gradient: bool) -> int:
        """Members per ensemble solve."""
        copies = (_COPIES_RECURSION if self.lean else _COPIES_GRADIENT) if gradient else _COPIES_VALUE
        return max(1, _MEMORY // (copies * self.member_bytes))


def objective(
    model: SequenceModel,
    target: Target,
    x: Tensor | None,
    t: Tensor | None,
    error: str,
    horizon: float | None,
    solver: Solver | None,
    interpolation: Interpolation,
    betas: Array,
    mask: Tensor | None = None,
) -> Objective:
    """The error of that name between model and target; arguments as in `perturbation_error`."""
    if error in _OF_KERNELS:
        if mask is not None:
            raise ValueError(f"mask is for errors measured on inputs, {error!r} is of kernels: leave it out")
        kernel = linear_kernel(model, target)
        if horizon is None:
            if t is None:
                raise ValueError(f"error {error!r} needs a horizon: give t, or horizon=T (math.inf for all times)")
            horizon = float(grids.tensor(t, "t", per_sequence=True).detach()[..., -1].max())
        distance = _OF_KERNELS[error].build(kernel, horizon)
        if not math.isfinite(distance.scale):
            raise ValueError(f"kernel {kernel.label} is infinite at 0, where 'kernel_sobolev' is infinite: take 'kernel_l1'")
        grid = distance.grid if isinstance(distance, KernelL1) else distance.l1.grid
        entries = grid.times.numel() * sum(tensor.numel() for tensor in model.field().layers[0].W.tensors)
        return Objective(distance, distance.scale, horizon, error, 8 * entries, lean=True)
    if x is None or t is None:
        raise ValueError(f"error {error!r} is measured on inputs: give x (batch, time, input) and t (time,), or take 'kernel_l1'")
    if horizon is not None:
        raise ValueError(f"horizon is for errors of kernels, got horizon={horizon} for {error!r}: it is t[-1] - t[0] there")
    with torch.no_grad():
        # Through the public call once, so that whatever does not fit is reported in the user's terms.
        trial = solver
        if solver is None and not model.is_map:  # its accuracy does not matter here: errors are solved otherwise
            trial = automatic(model.field(), own_times=isinstance(t, Tensor) and t.ndim == 2).unchecked()
        unperturbed = model(x, t, solver=trial, interpolation=interpolation)
        y = target if isinstance(target, Tensor) else _call(target, x, t)
    if y.shape != unperturbed.shape:
        raise ValueError(
            f"the target has shape {tuple(y.shape)}, the model's output {tuple(unperturbed.shape)} (batch, time, output): "
            "make them agree"
        )
    y, mask = _observed(y.detach().to(unperturbed), mask, values=isinstance(target, Tensor))
    largest = x.detach().abs().amax((-2, -1)).unsqueeze(-1)
    if error == "sup" and not (largest > 0).all():
        raise ValueError("error 'sup' divides by |x|_inf, got a sequence that is 0 throughout: leave it out")
    measures: dict[str, losses.Loss] = {
        **losses.LOSSES,
        "relative_l2": losses.relative_l2,
        "sup": lambda y_hat, y, mask: _sup(y_hat, y, largest, mask),
    }
    measure = measures[error]
    scale = float(measure(torch.zeros_like(y), y, mask))
    if not 0 < scale < math.inf:
        raise ValueError("the target answers 0 to every input, so that no error can be told from it: give other inputs")
    with torch.no_grad():
        h0 = model.rest_state()
    t = grids.tensor(t, "t", per_sequence=True).detach()

    def errors(ensemble: SequenceModel, solver: Solver | None) -> Tensor:
        # a diverged member counts with whatever it came to (inf or nan)
        return measure(ensemble.respond(x, t, h0, solver=solver, interpolation=interpolation, check=False).y, y, mask)

    initial = None
    if solver is None and not model.is_map:
        solver, power = _default_solver(model, t, float(betas[-1])), 1 / ERRORS[error]
        with torch.no_grad():
            initial = float(measure(_precise(model, x, t, h0, interpolation), y.double(), mask))
            while isinstance(solver, Fused) and solver.substeps < _MAX_STEPS_PER_SAMPLE:
                found = float(errors(replicate(model, 1), solver.unchecked()))
                if not abs((found / scale) ** power - (initial / scale) ** power) > _ACCURACY:
                    break
                solver = replace(solver, substeps=2 * solver.substeps)

    states = x.shape[-3] * x.shape[-2] * model.hidden_size * model.num_layers
    return Objective(
        partial(errors, solver=solver),
        scale,
        grids.span(t),
        error,
        states * x.element_size(),
        lean=solver is not None and solver.lean,
        initial=initial,
    )


def unperturbed_error(
    model: SequenceModel,
    y: Tensor,
    x: Tensor,
    t: Tensor,
    error: str,
    interpolation: Interpolation = "linear",
    mask: Tensor | None = None,
) -> float:
    """E of the model itself, in the error of that name."""
    found = objective(model, y, x, t, error, None, None, interpolation, np.zeros(1), mask)
    with torch.no_grad():
        return float(found.evaluate(replicate(model, 1))) if found.initial is None else found.initial


def _precise(model: SequenceModel, x: Tensor, t: Tensor, h0: Tensor, interpolation: Interpolation) -> Tensor:
    """The model's outputs by a solve to tight tolerances in double precision."""
    model = copy.deepcopy(model).double()
    solver = automatic(model.field(), *_TIGHT, own_times=t.ndim == 2).unchecked()
    return model.respond(x.double(), t.double(), h0.double(), solver=solver, interpolation=interpolation, check=False).y


def _observed(y: Tensor, mask: Tensor | None, values: bool) -> tuple[Tensor, Tensor | None]:
    """Targets, and where they are there; of values given as such NaN is a missing one, as in `odernn.Data`."""
    if mask is not None:
        mask = losses.full_mask(mask, y.shape).to(y.device)
    elif values and y.isnan().any():
        mask = torch.ones_like(y, dtype=torch.bool)
    if mask is not None and values:
        mask = mask & ~y.isnan()
    there = y if mask is None else y[mask]
    if not there.numel():
        raise ValueError("the target holds NaN alone, or its mask none: nothing is there to compare with")
    if not torch.isfinite(there).all():
        raise ValueError("the target holds NaN or infinite values")
    return y, mask


def _sup(y: Tensor, target: Tensor, largest: Tensor, mask: Tensor | None) -> Tensor:
    """max over batch and time of |y - target|_2 / |x|_inf, one value per ensemble member; |x|_inf is (batch, 1)."""
    difference = y - target if mask is None else torch.where(mask, y - target, 0.0)
    return (torch.linalg.vector_norm(difference, dim=-1) / largest).amax((-2, -1))


def _call(target: Any, x: Tensor, t: Tensor) -> Tensor:
    if not callable(target) or isinstance(target, Kernel | type):
        raise ValueError(
            f"the target is a {type(target).__name__}, expected a functional, a function (x, t) -> y, or the values y; wrap a "
            "kernel in ConvolutionalFunctional"
        )
    y = target(x, t)
    if not isinstance(y, Tensor):
        raise ValueError(f"the target gave a {type(y).__name__}, expected a tensor y (batch, time, output)")
    return y


def _default_solver(model: SequenceModel, t: Tensor, beta: float) -> Solver:
    """`Exact` where it applies, else rk4 with steps that resolve the fastest rate in the ball of radius beta."""
    if Exact().supports(model.field()) and (t.ndim == 1 or Exact().takes_own_times(model.field())):
        return Exact()
    if model.field().opaque:
        return TorchDiffEq("dopri5", adjoint=False, check=False)
    rates = []
    with torch.no_grad():
        for sign in (-1.0, 1.0):
            extreme = replicate(model, 1)
            corner = slowest_corner(model, "spectral")
            for name, weight in extreme.named_parameters():
                weight.add_(sign * beta * corner[name])
            field = extreme.field()
            for layer in field.layers:
                rates.append(float(torch.linalg.matrix_norm(layer.W.to_dense(), ord=2).max()))
            if field.leaky:
                rates.append(1 / field.tau)  # of units whose sigma' is 0
    step = float(t.diff().max())
    wanted = max(1, math.ceil(step * max(rates) / _RK4_REACH)) if all(map(math.isfinite, rates)) else _MAX_STEPS_PER_SAMPLE
    pieces = min(wanted, _MAX_STEPS_PER_SAMPLE)
    checked = wanted > pieces or not all(map(math.isfinite, rates))  # steps within reach of every rate need no second look
    if Fused().supports(model.field()):
        return Fused("rk4", substeps=pieces, check=checked)
    return TorchDiffEq("rk4", adjoint=False, step_size=None if pieces == 1 else step / pieces, check=checked)
