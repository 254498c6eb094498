"""Exact theory of linear models: rho_hat(t) = c^T e^{Wt} U, and the distance of two kernels.

For linear functionals the error norm of [IA] needs no inputs: sup_x |H_t(x) - H_hat_t(x)| / |x|_inf tends to the L1
distance of the kernels, int |rho - rho_hat|_1 dt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn.citations import record
from odernn.fields import VectorField
from odernn.models import SequenceModel
from odernn.state_matrices import DenseMatrix
from targets import ConvolutionalFunctional, Functional, Kernel, arguments

from ..results import Result

Array = NDArray[np.float64]

# Each octave of time is cut in so many panels, geometrically, with Gauss-Legendre nodes in each.
PANELS_PER_OCTAVE = 2
NODES_PER_PANEL = 8
# Octaves below the horizon; [0, T 2^-20] is one more set of panels. T = 1000 leaves 0.001, below every rate met here.
_OCTAVES = 20
# [0, inf) ends at 2^300 = 1e90 time units: beyond, even (1+t)^-1.1 has only 1e-8 of its integral.
_INFINITY = 2.0**300
# The shortest time of the infinite grid, in time units; a finite horizon has 2^-20 T in its place.
_INFINITE_START = 2.0**-14
# Part of int |rho| that the nodes may miss before the first octave: singularities at 0 stay below, with their error estimate.
_UNSEEN = 1e-2
# numpy's nodes are tested to this degree.
_MOST_NODES = 100


@dataclass(frozen=True)
class LogGrid:
    """Composite Gauss-Legendre rule on [0, T] with panels geometric in t, so that every time scale is resolved alike.

    All octaves [2^k t1, 2^{k+1} t1] hold the same nodes up to the factor 2^k, so that e^{Wt} in one is the square of that in
    the one before.

    Args:
        first: nodes in [0, t1], (F,).
        octave: nodes in [t1, 2 t1], (P,).
        first_weights, octave_weights: their quadrature weights.
        octaves: number K of octaves, T = 2^K t1.
    """

    first: Tensor
    octave: Tensor
    first_weights: Tensor
    octave_weights: Tensor
    octaves: int

    @staticmethod
    def build(
        horizon: float,
        breakpoints: tuple[float, ...] = (),
        panels_per_octave: int = PANELS_PER_OCTAVE,
        nodes_per_panel: int = NODES_PER_PANEL,
    ) -> LogGrid:
        """The grid on [0, horizon], with panels that end at the breakpoints; horizon may be inf.

        Raises:
            ValueError: a horizon that is not positive.
        """
        horizon = arguments.number("horizon", horizon, above=0, finite=False)
        panels_per_octave = arguments.count("panels_per_octave", panels_per_octave)
        nodes_per_panel = arguments.count("nodes_per_panel", nodes_per_panel, most=_MOST_NODES)
        breakpoints = tuple(np.ravel(arguments.real_tensor("breakpoints", breakpoints).numpy()).tolist())
        end = min(horizon, _INFINITY)
        octaves = _OCTAVES if math.isfinite(horizon) else round(math.log2(_INFINITY / _INFINITE_START))
        start = end * 2.0**-octaves
        nodes, weights = np.polynomial.legendre.leggauss(nodes_per_panel)
        # A breakpoint's image in [1, 2) cuts every octave: a panel each, and the octaves stay similar.
        images = [math.modf(math.log2(time / start))[0] for time in breakpoints if start < time < end]
        edges = 2 ** np.unique(np.concatenate([np.linspace(0, 1, panels_per_octave + 1), images]))
        first, first_weights = _composite(start, np.linspace(0, 1, panels_per_octave + 1), nodes, weights)
        octave, octave_weights = _composite(start, edges, nodes, weights)
        return LogGrid(first, octave, first_weights, octave_weights, octaves)

    @property
    def times(self) -> Tensor:
        """All nodes, (N,), increasing."""
        return self._spread(self.first, self.octave)

    @property
    def weights(self) -> Tensor:
        """Quadrature weights of all nodes, (N,)."""
        return self._spread(self.first_weights, self.octave_weights)

    def _spread(self, first: Tensor, octave: Tensor) -> Tensor:
        scales = 2.0 ** torch.arange(self.octaves, dtype=torch.float64)
        return torch.cat([first, (scales.unsqueeze(-1) * octave).flatten()])


def _composite(unit: float, edges: Array, nodes: Array, weights: Array) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the rule in every panel; edges in this unit."""
    left, width = edges[:-1, None], np.diff(edges)[:, None]
    parts = (left + width * (nodes + 1) / 2, width * weights / 2)
    times, weights = (unit * part.ravel() for part in parts)
    return torch.from_numpy(times), torch.from_numpy(weights)


def impulse_kernel(field: VectorField, grid: LogGrid) -> Tensor:
    """rho_hat(t) = c^T e^{Wt} U at the grid's nodes, (..., output * input, N), differentiable in the weights.

    Diagonal W: elementwise exponentials. Dense W: matrix exponentials in the first octave, squared from one octave to the
    next (no eigenvectors, which near-defective W do not have).

    Raises:
        ValueError: not one layer that is linear with a linear readout.
    """
    arguments.instance("field", field, VectorField, "give model.field()")
    arguments.instance("grid", grid, LogGrid, "give LogGrid.build(horizon)")
    if len(field.layers) != 1 or not field.activation.linear:
        raise ValueError(
            f"the kernel c^T e^(Wt) U is that of one linear layer, got {len(field.layers)} layer(s) with activation "
            f"{field.activation.name!r}: use an error measured on inputs, such as 'relative_l2'"
        )
    (layer,) = field.layers
    W, U, c = layer.W, layer.U, field.c
    if isinstance(W, DenseMatrix):
        times = torch.cat([grid.first, grid.octave]).to(U).reshape(-1, 1, 1)
        powers = torch.linalg.matrix_exp(W.W.unsqueeze(-3) * times)  # (..., F + P, m, m)
        powers, octave = powers.split([grid.first.numel(), grid.octave.numel()], -3)
        parts = [powers @ U.unsqueeze(-3)]
        for k in range(grid.octaves):
            parts.append(octave @ U.unsqueeze(-3))
            if k + 1 < grid.octaves:
                octave = octave @ octave
        rho = c.unsqueeze(-3) @ torch.cat(parts, -3)  # (..., N, output, input)
        return rho.flatten(-2).mT
    # c and U as modes see them: real, or one complex number for each conjugate pair.
    c, U = W.to_modes(c).conj(), W.to_modes(U.mT)
    amplitude = (c.unsqueeze(-2) * U.unsqueeze(-3)).flatten(-3, -2)  # (..., output * input, modes)
    rho = amplitude @ torch.exp(W.eigenvalue.unsqueeze(-1) * grid.times.to(layer.U))
    return rho.real if rho.is_complex() else rho


@dataclass(frozen=True)
class KernelL1:
    """|rho - rho_hat|_L1 on [0, T], as a function of the model.

    Args:
        rho: the target's kernel at the nodes of the grid, (input, N).
        grid: the quadrature.
    """

    rho: Tensor
    grid: LogGrid

    @staticmethod
    def build(kernel: Kernel, horizon: float, nodes_per_panel: int = NODES_PER_PANEL) -> KernelL1:
        """The distance from a kernel on [0, horizon].

        Raises:
            ValueError: no kernel, or one that lives before the first nodes, where the grid does not see it.
        """
        arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
        grid = LogGrid.build(horizon, kernel.breakpoints, nodes_per_panel=nodes_per_panel)
        distance = KernelL1(torch.from_numpy(kernel.values(grid.times.numpy())).mT, grid)
        # its mass before the first octave once more, on a grid that is as fine there as this one is up to the horizon
        earliest = LogGrid.build(float(grid.octave[0]), (), nodes_per_panel=nodes_per_panel)
        masses = (
            float((torch.from_numpy(np.abs(kernel.values(times.numpy())).sum(-1)) * weights).sum())
            for times, weights in ((grid.first, grid.first_weights), (earliest.times, earliest.weights))
        )
        seen, there = masses
        unseen = distance.scale == 0 and not kernel.breakpoints
        if unseen or abs(there - seen) > _UNSEEN * max(distance.scale, there):
            raise ValueError(
                f"kernel {kernel.label} lives before the first nodes of the grid on [0, {horizon:g}] "
                f"(int |rho| before t = {float(grid.octave[0]):.2g} is {there:.3g}, {seen:.3g} on the nodes), "
                "expected a slower one; shorten the horizon"
            )
        return distance

    def __call__(self, model: SequenceModel) -> Tensor:
        """The distance, one value per ensemble member; nan or inf where e^{Wt} overflows."""
        rho_hat = impulse_kernel(model.field(), self.grid)
        distance = (rho_hat - self.rho.to(rho_hat)).abs() * self.grid.weights.to(rho_hat)
        return distance.sum((-2, -1))

    @property
    def scale(self) -> float:
        """|rho|_L1 on [0, T]: the distance of the zero kernel."""
        return float((self.rho.abs() * self.grid.weights).sum())


@dataclass(frozen=True)
class KernelSobolev:
    """|H - H_hat| + |d/dt (H - H_hat)|, the error norm of [IA] Def 3.7, as a function of the model; see
    `kernel_derivative_distance` for the second part.

    Args:
        l1: the first part.
        start: rho(0), (input,).
    """

    l1: KernelL1
    start: Tensor

    @staticmethod
    def build(kernel: Kernel, horizon: float, nodes_per_panel: int = NODES_PER_PANEL) -> KernelSobolev:
        """The distance from a kernel on [0, horizon]; arguments as in `KernelL1.build`."""
        l1 = KernelL1.build(kernel, horizon, nodes_per_panel)
        with np.errstate(divide="ignore"):  # it may be infinite there
            return KernelSobolev(l1, torch.from_numpy(kernel.values(np.zeros(1))).flatten())

    def __call__(self, model: SequenceModel) -> Tensor:
        """The distance, one value per ensemble member; nan or inf where e^{Wt} overflows."""
        rho_hat = impulse_kernel(model.field(), self.l1.grid)
        first = (rho_hat - self.l1.rho.to(rho_hat)).abs() * self.l1.grid.weights.to(rho_hat)
        return first.sum((-2, -1)) + self.derivative(rho_hat, model)

    def derivative(self, rho_hat: Tensor, model: SequenceModel) -> Tensor:
        """The second part alone, from the model's kernel at the nodes, (..., input, N)."""
        field = model.field()
        return _variation(self.start.to(rho_hat) - (field.c @ field.layers[0].U).flatten(-2), self.l1.rho.to(rho_hat) - rho_hat)

    @property
    def scale(self) -> float:
        """The distance of the zero kernel."""
        return self.l1.scale + float(_variation(self.start, self.l1.rho))


def _variation(start: Tensor, e: Tensor) -> Tensor:
    """|e(0)|_1 and the total variation from there over the nodes, (..., input) and (..., input, N)."""
    return start.abs().sum(-1) + torch.cat([start.unsqueeze(-1), e], -1).diff(dim=-1).abs().sum((-2, -1))


@dataclass(frozen=True, eq=False, repr=False)
class KernelDistance(Result):
    """An L1 distance of kernels with the estimated error of its quadrature.

    Example:
        >>> import numpy as np
        >>> from analysis import ExponentialSum, kernel_distance
        >>> from targets import kernels
        >>> half = ExponentialSum(np.array([1.0]), np.array([0.5])).model()
        >>> round(kernel_distance(half, kernels.exponential()).value, 6)
        0.5
    """

    value: float
    quadrature_error: float


def kernel_distance(model: SequenceModel, target: Functional | Kernel, horizon: float = math.inf) -> KernelDistance:
    """|H - H_hat| = int_0^T |rho(t) - rho_hat(t)|_1 dt of a linear functional and a linear model.

        kernel_distance(fit_kernel(kernel, 8, horizon=1000.0), kernel, horizon=1000.0).value

    Args:
        model: `ContinuousRNN` or `StateSpaceModel` with activation 'linear', one layer, without an ensemble.
        target: a `ConvolutionalFunctional`, or its kernel.
        horizon: T; inf for [0, inf).

    Returns:
        The distance; inf for an unstable model on [0, inf). The error estimate is the difference from a rule with half the
        nodes. |.| has kinks where the kernels cross, which limit both, so that it may by chance be too small.

    Raises:
        ValueError: model or target are not linear, or have different channels.

    Example:
        >>> from analysis import fit_kernel, kernel_distance
        >>> from targets import kernels
        >>> rho = kernels.exponential()
        >>> kernel_distance(fit_kernel(rho, 1, horizon=30.0), rho, horizon=30.0).value < 1e-3
        True

    Source: [IA] Eq 4 and Def 3.4; [CoM].
    """
    kernel, horizon = linear_kernel(model, target), arguments.number("horizon", horizon, above=0, finite=False)
    record(kernel_distance)
    if model.ensemble:
        raise ValueError(f"kernel_distance takes one model, got an ensemble {model.ensemble}: take a member of it")
    with torch.no_grad():
        if math.isinf(horizon) and float(model.stability_margin()) <= 0:
            return KernelDistance(math.inf, 0.0)
        coarse = float(KernelL1.build(kernel, horizon)(model))
        fine = float(KernelL1.build(kernel, horizon, 2 * NODES_PER_PANEL)(model))
    return KernelDistance(fine, abs(fine - coarse))


def kernel_derivative_distance(model: SequenceModel, target: Functional | Kernel, horizon: float = math.inf) -> KernelDistance:
    """sup_t |d/dt (H_t - H_hat_t)|, the second part of the error norm of [IA] Def 3.7, of a linear functional and a linear model:

        sup_x |d/dt int_0^t e(s) x(t-s) ds| / |x|_inf = |e(0)|_1 + TV(e; [0, T]),    e = rho - rho_hat,

    because the derivative is e(0) x(t) + int_0^t e'(s) x(t-s) ds. The total variation is int |e'|, with the jumps of e; it is
    read off the nodes of the grid, so that it needs no derivative of rho, and falls short of it by what lies between two nodes.

    Args, Raises: as `kernel_distance`.

    Returns:
        The supremum, in units of rho (|H - H_hat| has those of rho times time), inf for a kernel that is infinite at 0, with the
        difference from a grid of half the nodes.

    Source: [IA] Def 3.7.
    """
    kernel, horizon = linear_kernel(model, target), arguments.number("horizon", horizon, above=0, finite=False)
    if model.ensemble:
        raise ValueError(f"kernel_derivative_distance takes one model, got an ensemble {model.ensemble}: take a member of it")
    if math.isinf(horizon) and float(model.stability_margin().detach()) <= 0:
        return KernelDistance(math.inf, 0.0)
    coarse, fine = (KernelSobolev.build(kernel, horizon, nodes) for nodes in (NODES_PER_PANEL, 2 * NODES_PER_PANEL))
    with torch.no_grad():
        values = [
            float(distance.derivative(impulse_kernel(model.field(), distance.l1.grid), model)) for distance in (coarse, fine)
        ]
    return KernelDistance(values[1], abs(values[1] - values[0]) if math.isfinite(values[1]) else 0.0)


def linear_kernel(model: SequenceModel, target: object) -> Kernel:
    """The kernel of a linear target that fits a linear continuous model.

    Raises:
        ValueError: either is not linear, or their channels disagree.
    """
    kernel = target.kernel if isinstance(target, ConvolutionalFunctional) else target
    if not isinstance(kernel, Kernel):
        raise ValueError(
            f"the L1 distance of kernels needs a ConvolutionalFunctional or a Kernel as target, got a {type(target).__name__}: "
            "use an error measured on inputs, such as 'relative_l2'"
        )
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if model.is_map:
        raise ValueError(f"the L1 distance of kernels needs a model in continuous time, got {model.name!r}")
    if (model.input_size, model.output_size) != (kernel.size, 1):
        raise ValueError(
            f"the kernel has {kernel.size} channel(s) and one output, the model takes {model.input_size} and gives "
            f"{model.output_size}: build it with input_size={kernel.size}, output_size=1"
        )
    if model.num_layers != 1 or not model.activation.linear:
        raise ValueError(
            f"the L1 distance of kernels needs one layer with activation 'linear', got {model.num_layers} layer(s) with "
            f"{model.activation.name!r}: use an error measured on inputs, such as 'relative_l2'"
        )
    return kernel
