"""Training of linear RNNs by gradient flow on a target whose memory has a late part ([CoM] Sec 4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import erfc

from odernn.models import ContinuousRNN
from targets import kernels

from ...linear.theory import LogGrid, impulse_kernel
from ..engine.figure import job

Array = NDArray[np.float64]

# Of the flow, whose weights are of order 1: gradients on the plateau are as small as e^{-memory}, and must stay above these.
_RTOL, _ATOL = 1e-9, 1e-13
# Samples of the loss that are kept for the picture.
_SAMPLES = 150
# The first of them; and from which part of the last on there are as many again.
_FIRST, _CLOSE = 1e-2, 0.9
# Rates at the start: memories no longer than that of e^{-t}; and the size of U and c relative to the project's own: small, so
# that the loss starts above the plateau.
_INITIAL_RATES, _INITIAL_SIZE = (1.0, 2.0), 0.3
# Horizon of the quadrature by which the closed form is checked: e^{-t} and the late part are over.
_HORIZON = 100.0


def loss_and_gradient(weights: Array, center: float) -> tuple[float, Array]:
    """J = int_0^inf (rho - rho_hat)^2 dt and its gradient, for rho = e^{-t} + e^{-(t - center)^2} and rho_hat = sum_j c_j U_j
    e^{-r_j t}.

    It is the mean square error of the linear functionals under white noise of unit intensity. With a = c U and the Laplace
    transform L of rho,

        J = |rho|^2 - 2 sum_j a_j L(r_j) + sum_jk a_j a_k / (r_j + r_k).

    Args:
        weights: (r, U, c), (3 m,).
        center: of the late part.

    Returns:
        J, and its gradient (3 m,).
    """
    r, U, c = np.split(weights, 3)
    a, sums = U * c, r[:, None] + r
    L, slope = _laplace(r, center)
    J = _square_norm(center) - 2 * a @ L + a @ (1 / sums) @ a
    of_a = -2 * L + 2 * (1 / sums) @ a
    of_r = -2 * a * slope - 2 * a * ((1 / sums**2) @ a)
    return float(J), np.concatenate([of_r, of_a * c, of_a * U])


def late_energy(center: float) -> float:
    """int e^{-2 (t - center)^2} dt: the loss of a model that has learned e^{-t} and nothing else."""
    return math.sqrt(math.pi / 8) * float(erfc(-math.sqrt(2) * center))


def _laplace(r: Array, center: float) -> tuple[Array, Array]:
    """L(r) = int rho e^{-rt} dt and its derivative."""
    late = math.sqrt(math.pi) / 2 * np.exp(r**2 / 4 - r * center) * erfc(r / 2 - center)
    # d/dr of the integrand is -t times it, and int t e^{-(t-mu)^2 - rt} dt = (mu - r/2) late + e^{-mu^2} / 2.
    late_slope = -(center - r / 2) * late - math.exp(-(center**2)) / 2
    return 1 / (1 + r) + late, -1 / (1 + r) ** 2 + late_slope


def _square_norm(center: float) -> float:
    late, _ = _laplace(np.array([1.0]), center)
    return 0.5 + 2 * (float(late[0]) - 0.5) + late_energy(center)


def initial_model(hidden_size: int, seed: int) -> ContinuousRNN:
    """A diagonal linear RNN with short memories, rates log-uniform in [1, 2], and small U and c."""
    model = ContinuousRNN(1, hidden_size, 1, "linear", "diagonal", bias=False, seed=seed, dtype=torch.float64)
    slowest, fastest = _INITIAL_RATES
    uniform = torch.rand(hidden_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model.set_matrix(-torch.diag(slowest * (fastest / slowest) ** uniform))
    with torch.no_grad():
        model.layer_weights[0].U.mul_(_INITIAL_SIZE)
        model.c.mul_(_INITIAL_SIZE)
    return model


def weights_of(model: ContinuousRNN) -> Array:
    """(r, U, c) of a diagonal linear RNN, (3 m,)."""
    tensors = (-model.spectrum().real, model.layer_weights[0].U.flatten(), model.c.flatten())
    return np.concatenate([tensor.detach().numpy() for tensor in tensors])


@job("plateau-by-flow")
def plateau(center: float, hidden_size: int, seed: int, drop: float, limit: float) -> dict[str, Any]:
    """Gradient flow d(r, U, c)/dtau = -grad J, until the loss has left its plateau.

    The plateau is the time that J spends between (1 + drop) and (1 - drop) times `late_energy`.

    Args:
        center: of the late part, the memory of the target.
        hidden_size, seed: of the model.
        drop: relative.
        limit: longest training time.

    Returns:
        "start" and "stop" of the plateau in training time (None where not reached by `limit`), and the loss along training:
        "times", "losses", with "level" the loss on the plateau.

    Raises:
        ArithmeticError: the integrator gave up.
    """
    levels = [(1 + sign * drop) * late_energy(center) for sign in (1, -1)]

    def velocity(_: float, weights: Array) -> Array:
        return -loss_and_gradient(weights, center)[1]

    def entered(_: float, weights: Array) -> float:
        return loss_and_gradient(weights, center)[0] - levels[0]

    def left(_: float, weights: Array) -> float:
        return loss_and_gradient(weights, center)[0] - levels[1]

    left.terminal = True  # type: ignore[attr-defined]
    first = weights_of(initial_model(hidden_size, seed))
    flow = solve_ivp(
        velocity, (0, limit), first, method="LSODA", events=(entered, left), rtol=_RTOL, atol=_ATOL, dense_output=True
    )
    if not flow.success:
        raise ArithmeticError(f"the gradient flow could not be followed: {flow.message}")
    start, stop = (float(times[0]) if len(times) else None for times in flow.t_events)
    end = flow.t[-1]
    # The drop is sudden, and falls between two of the first.
    times = np.sort(np.concatenate([np.geomspace(_FIRST, end, _SAMPLES), np.linspace(_CLOSE * end, end, _SAMPLES)]))
    losses = [loss_and_gradient(weights, center)[0] for weights in flow.sol(times).T]
    return {"start": start, "stop": stop, "times": times, "losses": losses, "level": late_energy(center)}


@job("plateau-by-descent")
def descent(center: float, hidden_size: int, seed: int, drop: float, learning_rate: float, steps: int) -> dict[str, Any]:
    """The same by plain gradient descent on a quadrature of (rho - c^T e^{Wt} U)^2, gradients by autograd: an independent check.

    Returns:
        "stop" of the plateau, steps times learning rate; None if not reached.
    """
    model = initial_model(hidden_size, seed)
    grid = LogGrid.build(_HORIZON, (center,))
    rho = torch.from_numpy(kernels.get("two_part", center=center).values(grid.times.numpy())[:, 0])
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss = grid.weights @ (rho - impulse_kernel(model.field(), grid).squeeze(0)).square()
        if float(loss.detach()) <= (1 - drop) * late_energy(center):
            return {"stop": step * learning_rate}
        loss.backward()
        optimizer.step()
    return {"stop": None}
