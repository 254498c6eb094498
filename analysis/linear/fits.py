"""Linear models fitted to a kernel without gradient descent: rho(t) ~ sum_j a_j e^{-r_j t}."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import least_squares
from scipy.special import gammaln, roots_genlaguerre

from odernn import parameterizations
from odernn.citations import record
from odernn.models import ContinuousRNN
from odernn.parameterizations import Parameterization
from odernn.recurrences import INITIAL_RATES, RANGE_MARGIN
from targets import Kernel, arguments, grids

from ..results import Result
from .theory import KernelL1, LogGrid

Array = NDArray[np.float64]

# Faster modes would serve only the first hundredth of a time unit.
_FASTEST_RATE = 20.0
# Slower ones are constants on every horizon met here; keeps e^q finite when the optimiser looks far.
_SLOWEST_RATE = 1e-6
# Penalties of variable projection, relative to the squared norm of rho. Without them nearly cancelling pairs of amplitudes and
# modes slower than the target appear, and then these decide the perturbation error, not the target.
RIDGE = 1e-5
RATE_PRIOR = 1e-7
_FIT_TOLERANCE = 1e-8
# Nearly equal modes (many on one exponential) give flat valleys: by then the errors are far below what matters.
_MAX_EVALUATIONS = 60
# Random starts: each may end in another local minimum.
_STARTS = 3
# Gamma(p) is a number below this exponent, and the weights of generalised Laguerre quadrature up to so many nodes.
_STEEPEST, _MOST_MODES = 171.0, 300
_LARGEST_SEED = 2**63 - 1
# Nodes of the fitting grid: a kernel and some twenty exponentials are smooth on each panel of it.
_PANELS_PER_OCTAVE, _NODES_PER_PANEL = 1, 6


@dataclass(frozen=True, eq=False, repr=False)
class ExponentialSum(Result):
    """sum_j a_j e^{-r_j t}.

    Args:
        rates: r, (m,), 1/time.
        amplitudes: a, (m,).

    Example:
        >>> import numpy as np
        >>> from analysis import ExponentialSum
        >>> total = ExponentialSum(np.array([1.0, 0.1]), np.array([2.0, 1.0]))
        >>> float(total(0.0)), total.model().hidden_size
        (3.0, 2)
    """

    rates: Array
    amplitudes: Array

    def __call__(self, t: ArrayLike) -> Array:
        """The sum at times of any shape."""
        return np.exp(-np.asarray(t, dtype=np.float64)[..., None] * self.rates) @ self.amplitudes

    def model(self, parameterization: str | Parameterization = "direct") -> ContinuousRNN:
        """The linear diagonal model with this kernel, without b, in float64; c_j u_j = a_j shared equally, c_j >= 0 = |u_j|.

        Raises:
            ValueError: rates that the parameterisation cannot take.
        """
        model = ContinuousRNN(
            1, self.rates.size, 1, "linear", "diagonal", parameterization, bias=False, seed=0, dtype=torch.float64
        )
        layer = model.layer_weights[0]
        model.set_matrix(torch.diag(torch.from_numpy(-self.rates)))
        with torch.no_grad():
            # The state sees U times the parameterisation's input scale: that part of the amplitude is there already.
            scale = layer.recurrence.scale_input(torch.ones_like(layer.U)).squeeze(-1)
            share = (torch.from_numpy(self.amplitudes) / scale).abs().sqrt()
            layer.U.copy_((share * torch.from_numpy(np.sign(self.amplitudes))).unsqueeze(-1))
            model.c.copy_(share.unsqueeze(0))
        return model


def laplace_sum(exponent: float, m: int, scale: float = 1.0) -> ExponentialSum:
    """A near-optimal exponential sum for the power law (1 + t/scale)^-p, by Gauss quadrature of its Laplace representation

        (1 + t/s)^-p = 1/Gamma(p) int_0^inf v^{p-1} e^{-v} e^{-v t/s} dv,

    that is with nodes of the generalised Laguerre polynomials of order p - 1: exact to order 2m in t/s, all amplitudes positive.

    Raises:
        ValueError: exponent, scale or m not positive, or the first or the last too large for the quadrature.

    Example:
        >>> from analysis import laplace_sum
        >>> round(float(laplace_sum(1.5, m=8)(1.0)), 2)  # 2^-1.5
        0.35
    """
    exponent = arguments.number("exponent", exponent, above=0, below=_STEEPEST)
    m, scale = arguments.count("m", m, most=_MOST_MODES), arguments.number("scale", scale, above=0)
    nodes, weights = roots_genlaguerre(m, exponent - 1)
    return ExponentialSum(nodes / scale, weights / math.exp(gammaln(exponent)))


def fit_amplitudes(kernel: Kernel, rates: ArrayLike, t: ArrayLike, ridge: float = 0.0) -> ExponentialSum:
    """Least squares on a given basis of exponentials, over samples of the kernel: the papers' way ("polynomial regression" in
    e^-t for the rates 1, ..., m).

        min_a  sum_n (rho(t_n) - sum_j a_j e^{-r_j t_n})^2 + ridge |a|^2

    Args:
        kernel: scalar.
        rates: (m,), >= 0, 1/time.
        t: (n,) sample times, increasing.
        ridge: >= 0.

    Raises:
        ValueError: a vector kernel, rates, times or ridge that are none, or fewer samples than rates without a ridge.

    Example:
        >>> import numpy as np
        >>> from analysis import fit_amplitudes
        >>> from targets import kernels
        >>> fit_amplitudes(kernels.exponential(), [1.0, 2.0], np.linspace(0, 5, 51)).amplitudes.round(6) + 0.0
        array([1., 0.])

    Source: [IA] Fig 1.
    """
    _require_scalar(kernel)
    t, ridge = grids.tensor(t, "t").detach().double().cpu().numpy(), arguments.number("ridge", ridge, least=0)
    rates = arguments.real_tensor("rates", rates).detach().double().cpu().numpy()
    if rates.ndim != 1 or not rates.size or rates.min() < 0:
        raise ValueError(f"rates have shape {rates.shape}, expected (m,), each at least 0; give for example [0.1, 1.0]")
    if t.size < rates.size and ridge == 0:
        raise ValueError(f"{t.size} samples do not determine {rates.size} amplitudes: give more times, or a ridge")
    basis = np.concatenate([np.exp(-np.outer(t, rates)), math.sqrt(ridge) * np.eye(rates.size)])
    values = np.concatenate([kernel.values(t)[:, 0], np.zeros(rates.size)])
    return ExponentialSum(rates, np.linalg.lstsq(basis, values, rcond=None)[0])


def fit_kernel(
    kernel: Kernel,
    m: int,
    horizon: float,
    parameterization: str | Parameterization = "direct",
    *,
    seed: int = 0,
) -> ContinuousRNN:
    """A linear diagonal model of width m fitted to a kernel by bounded variable projection in the logarithms of its rates:

        min_q min_a  int_0^T (rho - sum_j a_j e^{-r_j t})^2 (1 + t) dt / int_0^T rho^2 (1 + t) dt
                     + RIDGE |a|^2 + RATE_PRIOR |q|^2,

    r = e^q inside the range of f. The weight 1 + t makes the L2 norm bound the L1 norm of [IA] up to sqrt(log(1 + T)), so that
    the tail counts. The inner minimum is a linear least squares problem; the outer one is solved by
    `scipy.optimize.least_squares` with Kaufman's Jacobian from three random starts, rates log-uniform in [0.3, 2] (starts near
    1/T leave spurious slow modes), and for the polynomial kernel from `laplace_sum`, too.

    Args:
        kernel: scalar.
        m: width.
        horizon: T.
        parameterization: its range bounds the rates.
        seed: of the starts.

    Returns:
        The model with the smallest objective.

    Raises:
        ValueError: a vector kernel, or one that lives on far shorter times than the horizon; m or seed out of range; a horizon
            that is not positive and finite.

    Example:
        >>> from analysis import fit_kernel, kernel_distance
        >>> from targets import kernels
        >>> rho = kernels.polynomial(exponent=1.5)
        >>> kernel_distance(fit_kernel(rho, 4, horizon=100), rho, horizon=100).value < 0.1
        True

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973) [GolubPereyra1973]; Kaufman, BIT 15 (1975) [Kaufman1975].
    """
    record(fit_kernel)
    _require_scalar(kernel)
    m, horizon = arguments.count("m", m), arguments.number("horizon", horizon, above=0)
    seed = arguments.count("seed", seed, least=0, most=_LARGEST_SEED)
    if not isinstance(parameterization, Parameterization):
        parameterization = parameterizations.get(parameterization)
    KernelL1.build(kernel, horizon)  # refuses a kernel that the grid does not see
    problem = _VariableProjection.build(kernel, horizon, _fastest_rate(parameterization))
    generator = np.random.default_rng(seed)
    slowest, fastest = INITIAL_RATES
    logs = [generator.uniform(math.log(slowest), math.log(fastest), m) for _ in range(_STARTS)]
    if kernel.name == "polynomial":
        logs.append(np.log(laplace_sum(kernel.parameters["exponent"], m, kernel.parameters["scale"]).rates))
    return min((problem.solve(q) for q in logs), key=problem.cost).model(parameterization)


@dataclass(frozen=True)
class _VariableProjection:
    """The weighted least squares problem of `fit_kernel`: rows scaled so that |rho| = 1."""

    t: Array
    row_scale: Array
    rho: Array
    fastest: float

    @staticmethod
    def build(kernel: Kernel, horizon: float, fastest: float) -> _VariableProjection:
        grid = LogGrid.build(horizon, kernel.breakpoints, _PANELS_PER_OCTAVE, _NODES_PER_PANEL)
        t = grid.times.numpy()
        rho = kernel.values(t)[:, 0]
        weights = grid.weights.numpy() * (1 + t)
        scale = np.sqrt(weights / (weights @ rho**2))
        return _VariableProjection(t, scale, scale * rho, fastest)

    def solve(self, q: Array) -> ExponentialSum:
        low, high = math.log(_SLOWEST_RATE), math.log(self.fastest)
        # least_squares wants its start inside the box.
        inset = 1e-6 * (high - low)
        q = np.clip(q, low + inset, high - inset)
        result = least_squares(
            self._residual,
            q,
            self._jacobian,
            bounds=(low, high),
            xtol=_FIT_TOLERANCE,
            ftol=_FIT_TOLERANCE,
            gtol=_FIT_TOLERANCE,
            max_nfev=_MAX_EVALUATIONS,
        )
        _, _, amplitudes = self._project(result.x)
        return ExponentialSum(np.exp(result.x), amplitudes)

    def cost(self, fit: ExponentialSum) -> float:
        """The objective at a fit."""
        residual = self.rho - self.row_scale * fit(self.t)
        q = np.log(fit.rates)
        return float(residual @ residual + RIDGE * fit.amplitudes @ fit.amplitudes + RATE_PRIOR * q @ q)

    def _project(self, q: Array) -> tuple[Array, Array, Array]:
        """The basis (rows of the ridge below it), the orthonormal factor of its QR, and the best amplitudes."""
        basis = self.row_scale[:, None] * np.exp(-np.outer(self.t, np.exp(q)))
        Q, R = np.linalg.qr(np.concatenate([basis, math.sqrt(RIDGE) * np.eye(q.size)]))
        return basis, Q, solve_triangular(R, Q[: self.t.size].T @ self.rho)

    def _residual(self, q: Array) -> Array:
        basis, _, amplitudes = self._project(q)
        return np.concatenate([self.rho - basis @ amplitudes, -math.sqrt(RIDGE) * amplitudes, math.sqrt(RATE_PRIOR) * q])

    def _jacobian(self, q: Array) -> Array:
        basis, Q, amplitudes = self._project(q)
        # d/dq_j of the residual at fixed amplitudes, projected off the basis: Kaufman's part of the derivative.
        slope = np.concatenate([basis * np.exp(q) * self.t[:, None] * amplitudes, np.zeros((q.size, q.size))])
        slope = slope - Q @ (Q.T @ slope)
        return np.concatenate([slope, math.sqrt(RATE_PRIOR) * np.eye(q.size)])


def _fastest_rate(parameterization: Parameterization) -> float:
    return min(_FASTEST_RATE, -RANGE_MARGIN * parameterization.range[0])


def _require_scalar(kernel: Kernel) -> None:
    arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
    if kernel.size != 1:
        raise ValueError(f"exponential sums are fitted to scalar kernels, got one of {kernel.size} channels: fit them one by one")
