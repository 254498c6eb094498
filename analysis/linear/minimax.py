"""Linear models fitted against their own worst perturbation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from odernn.citations import record
from odernn.ensembles import member, replicate
from odernn.json_values import decode, encode
from odernn.models import ContinuousRNN, SequenceModel, build
from odernn.parameterizations import Direct, Parameterization
from targets import Kernel, arguments

from ..perturbation import PerturbationCurve, perturbation_error
from ..results import Result
from .fits import fit_kernel
from .theory import KernelL1

Array = NDArray[np.float64]

# Rounds of exchange, and L-BFGS steps in each.
_ROUNDS, _ITERATIONS = 12, 100
# The exponent that makes log-sum-exp a maximum to 3 %, and the relative gain below which the rounds end.
_SHARPNESS, _LEAST_GAIN = 50.0, 1e-3


@dataclass(frozen=True, eq=False, repr=False)
class MinimaxFit(Result):
    """A linear model fitted against its own worst perturbation.

    Args:
        model: the linear diagonal model.
        error: E_m(beta0) of it, L1 distance of kernels on [0, T].
        start_error: E_m(beta0) of the fit it started from.
        beta0: the radius.
        rounds: rounds of exchange that were made.

    Example:
        >>> from analysis import fit_minimax
        >>> from targets import kernels
        >>> fit_minimax(kernels.exponential(), 1, horizon=20.0, beta0=0.1).model.hidden_size
        1
    """

    model: ContinuousRNN
    error: float
    start_error: float
    beta0: float
    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, the model as its `config()` and its weights."""
        state = {"config": self.model.config(), "weights": self.model.state_dict()}
        return encode({field.name: getattr(self, field.name) for field in fields(self)} | {"model": state})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MinimaxFit:
        """The inverse of `to_dict`."""
        state = decode(values["model"])
        model = build(state["config"], dtype=torch.float64)
        model.load_state_dict({name: torch.tensor(weight, dtype=torch.float64) for name, weight in state["weights"].items()})
        return super().from_dict({**values, "model": model})


def fit_minimax(
    kernel: Kernel,
    m: int,
    horizon: float,
    beta0: float,
    parameterization: str | Parameterization = "direct",
    *,
    seed: int = 0,
) -> MinimaxFit:
    """A linear diagonal model that minimises E_m(beta0) itself:

        min_theta max_{|d| <= 1} |rho - rho_hat(theta + beta0 d)|_L1[0, T],    d in the recurrent weights.

    By exchange: the worst direction d of the current model joins a growing set, and theta minimises the largest error over the
    set (log-sum-exp of the logarithms, by L-BFGS) until no direction is worse. It shows how much of E_m(beta0) is due to the
    fit, and how much to the target and the parameterisation: an unstable target stays bad whatever the fit.

    Args:
        kernel, m, horizon, parameterization, seed: as in `fit_kernel`, whose fit is the start; for 'direct' with its rates
            raised by beta0 if that is better.
        beta0: radius of the ball, >= 0.

    Returns:
        The best model met, never worse than the start as far as the ascent sees.

    Raises:
        ValueError: as `fit_kernel`; a beta0 that is negative or not finite.

    Example:
        >>> from analysis import fit_minimax
        >>> from targets import kernels
        >>> fit = fit_minimax(kernels.exponential(), 1, horizon=20.0, beta0=0.1)
        >>> fit.error <= fit.start_error
        True

    Source: exchange methods for semi-infinite problems, Hettich and Kortanek, SIAM Rev. 35 (1993) [Hettich1993].
    """
    record(fit_minimax)
    beta0 = arguments.number("beta0", beta0, least=0)

    def worst(model: ContinuousRNN) -> PerturbationCurve:
        return perturbation_error(
            model, kernel, None, None, [beta0], error="kernel_l1", horizon=horizon, blocks="recurrent", draws=0, seed=seed
        )

    starts = [fit_kernel(kernel, m, horizon, parameterization, seed=seed)]
    if isinstance(starts[0].parameterization, Direct):
        faster = copy.deepcopy(starts[0])
        W = faster.field().layers[0].W.to_dense().detach()
        faster.set_matrix(W - beta0 * torch.eye(m, dtype=W.dtype))
        starts.append(faster)
    candidates = [(worst(model), model) for model in starts]
    curve, best = min(candidates, key=lambda pair: float(pair[0].errors[0]))
    start_error = error = float(curve.errors[0])
    distance = KernelL1.build(kernel, horizon)
    theta, active = best, [_difference(curve.worst_case, best)]
    rounds = 0
    while rounds < _ROUNDS:
        rounds += 1
        theta = _minimize_largest(distance, theta, active)
        curve = worst(theta)
        found = float(curve.errors[0])
        if found < error:
            gain, error, best = (error - found) / error, found, theta
            if gain < _LEAST_GAIN:
                break
        active.append(_difference(curve.worst_case, theta))
    return MinimaxFit(best, error, start_error, beta0, rounds)


def _difference(worst_case: SequenceModel | None, model: SequenceModel) -> dict[str, Tensor]:
    """The perturbation that leads to the one member of `worst_case`, by parameter name."""
    assert worst_case is not None  # only curves from files have none
    weights = dict(model.named_parameters())
    return {name: weight.detach()[0] - weights[name].detach() for name, weight in worst_case.named_parameters()}


def _minimize_largest(distance: KernelL1, model: ContinuousRNN, perturbations: list[dict[str, Tensor]]) -> ContinuousRNN:
    """The model whose largest distance over the given perturbations (and without any) is least, near `model`."""
    names = [name for name, _ in model.named_parameters()]
    shifts = {
        name: torch.stack([torch.zeros_like(perturbations[0][name]), *(shift[name] for shift in perturbations)]) for name in names
    }
    ensemble = replicate(model, len(perturbations) + 1)
    weights = dict(ensemble.named_parameters())
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    sizes = [math.prod(shapes[name]) for name in names]

    def place(flat: Array) -> None:
        parts = torch.from_numpy(flat).split(sizes)
        with torch.no_grad():
            for name, part in zip(names, parts):
                weights[name].copy_(part.reshape(shapes[name]) + shifts[name])

    def value_and_gradient(flat: Array) -> tuple[float, Array]:
        place(flat)
        logs = distance(ensemble).log()
        if not torch.isfinite(logs).all():
            return math.inf, np.zeros_like(flat)
        value = torch.logsumexp(_SHARPNESS * logs, 0) / _SHARPNESS
        gradients = torch.autograd.grad(value, [weights[name] for name in names])
        # theta + d_j moves with theta: the gradient in theta is the sum over members.
        return float(value.detach()), torch.cat([gradient.sum(0).flatten() for gradient in gradients]).numpy()

    start = torch.cat([weight.detach().flatten() for _, weight in model.named_parameters()]).numpy()
    result = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    place(result.x)
    # The member without a perturbation stands first.
    return cast(ContinuousRNN, member(ensemble, 0))
