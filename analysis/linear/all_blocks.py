"""What a perturbation of U and c alone does to a diagonal linear model, in closed form: why no parameterisation of the
eigenvalues makes memory that decays more slowly than exponentially stable in the sense of [IA] Def 3.4, which perturbs all
blocks.

The model has the kernel rho_hat(t) = sum_j c_j u_j e^{-l_j t}, l_j > 0. Let U and c move by d and e, |d|_2, |e|_2 <= beta, and W
stay, so that it does not matter how the rates are parameterised. The kernel moves by

    sum_j (c_j d_j + u_j e_j + d_j e_j) e^{-l_j t},

in L1 on [0, T] by sum_j g_j |...| where all terms have one sign, g_j = (1 - e^{-l_j T}) / l_j, and never by more. Hence, with
E(0) the distance of the unperturbed kernel from the target's:

1. E(beta) >= beta^2 max_j g_j - E(0): move the two weights of the slowest mode alone, with signs for which the three terms do not
   cancel. So r <= sqrt((|H| / 2 + E(0)) l) for a slowest mode that the horizon holds, whatever its own weights are.
2. E(beta) >= beta |(c_j g_j)_j|_2 - E(0), and the same with u: move U along c g alone.
3. If all c_j u_j >= 0 the largest change is exactly Q(beta) = max sum_j g_j (|c_j| x_j + |u_j| y_j + x_j y_j) over
   |x|_2, |y|_2 <= beta, and |E(beta) - Q(beta)| <= E(0). Where amplitudes have both signs Q still bounds the change from above.

So families of growing m with E_m(beta) <= C for one beta > 0 have, on [0, inf),

    l_j >= l := beta^2 / (C + E_m(0))      by 1, and
    |rho_hat(t)| <= |c / l|_2 |u / l|_2 max_j l_j^2 e^{-l_j t} <= ((C + E_m(0)) / beta)^2 l^2 e^{-l t},  t >= 2 / l, by 2,

the same bound for every m: the target's kernel decays exponentially. That is [IA] Thm 3.9 for these models, by U and c alone. For
a power law (1+t)^-p of any p > 0 the slowest rate must go to 0 with the accuracy, and so does r, like l^1/2 or faster: the first
order adds |c_j u_j| ~ l^p against what 2 allows, l^2, which for p < 2 is not met either. docs/all_blocks.md has the numbers.

A parameterisation that multiplies the input, 'lru', has u_j = s_j U_j, s_j = sqrt(l_j (2 - l_j)), and perturbs U: d_j above reads
s_j d_j, and c_j g_j below s_j c_j g_j. Then 1 is E(beta) >= beta^2 max_j s_j g_j - E(0), so that r falls like l^1/4, more slowly
than without s; but it falls, and the argument above goes through with l >= (beta^2 / (C + E_m(0)))^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from odernn.models import SequenceModel
from odernn.state_matrices import DiagonalMatrix
from targets import Functional, Kernel, arguments

from ..perturbation import TOLERANCE
from ..results import Result
from .theory import KernelL1, kernel_distance, linear_kernel

Array = NDArray[np.float64]

# The alternating maximisation rises at every round, and its limit is reached to rounding in some hundred.
_ROUNDS, _LEAST_GAIN = 10_000, 1e-13


@dataclass(frozen=True, eq=False, repr=False)
class ReadoutBounds(Result):
    """Bounds on r of a linear diagonal model when U and c are perturbed, and W is not; `perturbation_error(blocks="all")` is
    below `most` as well.

    Args:
        least, most: bounds of r. They differ by what E(0) leaves open if all c_j u_j >= 0, and more if not.
        slowest_mode: sqrt((|H| / 2 + E(0)) / max_j s_j g_j), what the slowest mode alone allows.
        slowest_rate: min_j l_j, 1/time.
        positive: whether all c_j u_j >= 0.
    """

    least: float
    most: float
    slowest_mode: float
    slowest_rate: float
    positive: bool


def readout_bounds(model: SequenceModel, target: Functional | Kernel, horizon: float) -> ReadoutBounds:
    """Bounds on the tolerance radius of U and c, in the L1 distance of kernels on [0, T].

        readout_bounds(fit_kernel(kernel, 8, 1000.0, "softplus"), kernel, 1000.0).most

    Args:
        model: linear, one layer, real diagonal W, one input and one output, all rates > 0.
        target: a `ConvolutionalFunctional`, or its kernel.
        horizon: T; inf for [0, inf).

    Raises:
        ValueError: another kind of model or target, or a rate that is not positive.

    Example:
        >>> from analysis import fit_kernel, readout_bounds
        >>> from targets import kernels
        >>> rho = kernels.polynomial(exponent=1.5)
        >>> bounds = readout_bounds(fit_kernel(rho, 4, 100.0, "softplus"), rho, 100.0)
        >>> bool(bounds.least <= bounds.most)
        True

    Source: see this module.
    """
    kernel, horizon = linear_kernel(model, target), arguments.number("horizon", horizon, above=0, finite=False)
    distance = kernel_distance(model, kernel, horizon).value
    g, c, u, s, rates = _modes(model, horizon)
    tolerated = TOLERANCE * KernelL1.build(kernel, horizon).scale
    positive = bool((c * u >= 0).all())
    slowest = math.sqrt((tolerated + distance) / (s * g).max())
    above = tolerated + distance
    first_order = above / max(float(np.linalg.norm(s * c * g)), float(np.linalg.norm(u * g)), np.finfo(np.float64).tiny)
    most = min(slowest, first_order)
    if positive:
        most = min(most, _inverse(g, c, u, s, above, most))
    least = _inverse(g, c, u, s, tolerated - distance, most) if tolerated > distance else 0.0
    return ReadoutBounds(least, most, slowest, float(rates.min()), positive)


def largest_change(model: SequenceModel, beta: float, horizon: float) -> float:
    """Q(beta), the largest L1 change of the kernel on [0, T] when U and c move by at most beta in norm; an upper bound of it
    where amplitudes c_j u_j have both signs.

    Args:
        model, horizon: as in `readout_bounds`.
        beta: >= 0.
    """
    g, c, u, s, _ = _modes(model, arguments.number("horizon", horizon, above=0, finite=False))
    return _largest_change(g, c, u, s, arguments.number("beta", beta, least=0))


def _modes(model: SequenceModel, horizon: float) -> tuple[Array, Array, Array, Array, Array]:
    """g, c, u, the input scale s and the rates l of every mode, (m,)."""
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    field = model.field()
    W = field.layers[0].W if len(field.layers) == 1 and field.activation.linear and not model.is_map else None
    if not isinstance(W, DiagonalMatrix) or W.imag is not None or (model.input_size, model.output_size) != (1, 1):
        raise ValueError(
            "readout bounds are for linear models of one real diagonal layer, one input and one output: give such a one"
        )
    (layer,) = model.layer_weights
    parts = (-W.real, field.layers[0].U.squeeze(-1), field.c.squeeze(-2), layer.scale_input(torch.ones_like(layer.U)).squeeze(-1))
    rates, u, c, s = (part.detach().double().numpy() for part in parts)
    if not (rates > 0).all():
        raise ValueError(f"the slowest rate is {rates.min():.3g}, expected rates > 0: a mode that grows has no bound")
    g = -np.expm1(-rates * horizon) / rates
    return g, c, u, s, rates


def _largest_change(g: Array, c: Array, u: Array, s: Array, beta: float) -> float:
    """max sum_j g_j (s_j |c_j| x_j + |u_j| y_j + s_j x_j y_j): each of x and y is best along the other's gradient. What they rise
    to from the slowest mode is compared with what they rise to from all modes alike."""
    c, u, value = np.abs(c), np.abs(u), 0.0
    for start in (np.eye(g.size)[(s * g).argmax()], np.full(g.size, g.size**-0.5)):
        x, last = beta * start, -1.0
        for _ in range(_ROUNDS):
            y = beta * _unit(g * (u + s * x))
            x = beta * _unit(s * g * (c + y))
            now = float(g @ (s * c * x + u * y + s * x * y))
            if now <= last * (1 + _LEAST_GAIN):
                break
            last = now
        value = max(value, now)
    return value


def _unit(v: Array) -> Array:
    """v / |v|_2, 0 for 0."""
    return np.asarray(v / max(float(np.linalg.norm(v)), np.finfo(np.float64).tiny))


def _inverse(g: Array, c: Array, u: Array, s: Array, value: float, above: float) -> float:
    """The beta <= above at which Q(beta) = value; `above` where Q is smaller there."""
    if _largest_change(g, c, u, s, above) <= value:
        return above
    return float(brentq(lambda beta: _largest_change(g, c, u, s, beta) - value, 0.0, above, xtol=1e-12 * above, rtol=1e-10))
