"""The generalisation measure tau of models that are linear in their state: as a number, as a scale of the readout, as a penalty.

    moments = InputMoments.measured(t, x)                   # mean and covariance of the inputs, from the training sequences
    tau = generalization_measure(model, moments)            # differentiable in all weights
    rescale_readout(model, moments)                         # c / tau^(1/2), before training
    train(model, data, TrainingConfig("adam", regularizer="tau"))

Source: F. Liu, Q. Li, From generalization analysis to optimization designs for state space models, ICML 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from targets import arguments, grids
from targets.functionals import Interpolation

from .activations import ACTIVATIONS
from .citations import record
from .fields import Layer, VectorField
from .models import DiscreteRNN, DiscreteSSM, SequenceModel
from .paths import heaviside
from .solvers import Exact
from .state_matrices import DenseMatrix

# Gauss-Legendre nodes in a panel. A step between samples is a panel, or is cut into 2, 4, ..., _MOST_CUTS, so that [0, T] has so
# many panels (|rho| has kinks, where the error is that of one panel) and modes turn by no more than so many radians in each.
_NODES, _PANELS, _TURN, _MOST_CUTS = 4, 200, 1.0, 128
# Lags before the last sample are cut geometrically so often: modes may fall much faster than samples come.
_OCTAVES = 20
# Steps are even if they differ by no more than this part.
_EVEN = 1e-9
# Covariances may be negative by this part: rounding.
_ROUNDING = 1e-10

# State equations of maps whose kernels are known.
_MAPS = (DiscreteRNN.state_equation, DiscreteSSM.state_equation)

_OverTime = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class InputMoments:
    """Mean mu(s) and covariance K(s, s) of inputs on [0, T], T the last time: all that tau needs to know of them.

    Args:
        t: times of the samples, (time,), float64.
        mean: s (n,) -> mu(s), (n, input).
        covariance: s (n,) -> K(s, s), (n, input, input), between the channels.
    """

    t: Tensor
    mean: _OverTime
    covariance: _OverTime

    def __repr__(self) -> str:
        return f"InputMoments({len(self.t)} samples on [{float(self.t[0]):g}, {float(self.t[-1]):g}], channels: {self.channels})"

    @staticmethod
    def measured(t: Tensor, x: Tensor, interpolation: Interpolation = "linear") -> InputMoments:
        """Mean and unbiased covariance over the sequences of a sample, between the samples those of the interpolated inputs.

        Args:
            t: (time,).
            x: (batch, time, input), two sequences or more.
            interpolation: 'linear' or 'hold'.

        Raises:
            ValueError: fewer sequences, times of each sequence, or x and t that do not fit.
        """
        arguments.choice("interpolation", interpolation, get_args(Interpolation))
        if isinstance(t, Tensor) and t.ndim == 2:
            raise ValueError(
                f"t has shape {tuple(t.shape)}, times of each sequence, expected (time,): tau takes the covariance of the inputs "
                "at each time, so bring all sequences to the same times"
            )
        t = grids.tensor(t, "t", least=2).detach().double().cpu()
        x = arguments.floating_tensor("x", x, shape="(batch, time, input)").detach().double().cpu()
        if x.ndim != 3 or x.shape[1] != len(t) or len(x) < 2 or not x.shape[2]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (batch, {len(t)}, input) with two sequences or more, of which tau takes "
                "the covariance: give more"
            )
        mean = x.mean(0)
        deviation = (x - mean).movedim(0, -1) / math.sqrt(len(x) - 1)  # (time, input, batch)
        at_samples, across = deviation @ deviation.mT, deviation[:-1] @ deviation[1:].mT
        across = across + across.mT

        def place(s: Tensor) -> tuple[Tensor, Tensor]:
            """The interval that s lies in, and where."""
            k = (torch.searchsorted(t, s, right=True) - 1).clamp(0, len(t) - 2)
            part = torch.zeros_like(s) if interpolation == "hold" else (s - t[k]) / (t[k + 1] - t[k])
            return k, part

        def mu(s: Tensor) -> Tensor:
            k, part = place(s)
            return torch.lerp(mean[k], mean[k + 1], part.unsqueeze(-1))

        def covariance(s: Tensor) -> Tensor:
            k, part = place(s)
            w = part[:, None, None]
            return (1 - w) ** 2 * at_samples[k] + w * (1 - w) * across[k] + w**2 * at_samples[k + 1]

        return InputMoments(t, mu, covariance)

    @staticmethod
    def given(t: Tensor, covariance: float | Callable[[Tensor, Tensor], Tensor], mean: float | _OverTime = 0.0) -> InputMoments:
        """Inputs whose law is known.

            InputMoments.given(t, 1.0)                                                # any stationary process of variance 1
            InputMoments.given(t, lambda s, u: torch.minimum(s, u))                   # Brownian motion
            InputMoments.given(t, 1.0, mean=lambda s: torch.sin(s))

        Args:
            t: (time,), from 0 to T.
            covariance: K(s, u) of tensors (n,): (n,), or (n, input, input) for several channels; or the variance K(s, s) of a
                stationary process of one channel: amplitude^2 of `targets.ornstein_uhlenbeck` and `gaussian_process`, and at the
                samples of `white_noise`. (White noise in continuous time has none: tau grows without bound as samples come
                closer.)
            mean: mu(s), (n,) or (n, input); or a number.

        Raises:
            ValueError: other shapes, or values that are not finite, or no covariance.
        """
        t = grids.tensor(t, "t", least=2).detach().double().cpu()
        variance = None if callable(covariance) else arguments.number("covariance", covariance, least=0)
        constant = None if callable(mean) else arguments.number("mean", mean)

        def K(s: Tensor) -> Tensor:
            values = _numbers("covariance", covariance(s, s) if callable(covariance) else variance, s)
            return values[:, None, None] if values.ndim == 1 else values

        def mu(s: Tensor) -> Tensor:
            values = _numbers("mean", mean(s) if callable(mean) else constant, s)
            return values[:, None] if values.ndim == 1 else values

        sizes = K(t)
        channels = sizes.shape[-1]
        if not channels or sizes.shape != (len(t), channels, channels) or not torch.isfinite(sizes).all():
            raise ValueError(
                f"covariance gives {tuple(sizes.shape)} at {len(t)} times, expected finite numbers ({len(t)},), or "
                f"({len(t)}, input, input) for several channels; give K(s, u)"
            )
        lowest, rounding = torch.linalg.eigvalsh(sizes)[:, 0], _ROUNDING * sizes.abs().max()
        if (lowest < -rounding).any() or ((sizes - sizes.mT).abs() > rounding).any():
            raise ValueError(
                f"covariance K(s, s) is that of no process (least eigenvalue {float(lowest.min()):.3g}), expected a variance, or "
                "a symmetric positive semidefinite matrix; give K(s, u)"
            )
        means = mu(t)
        if means.shape not in ((len(t), channels), (len(t), 1)) or not torch.isfinite(means).all():
            raise ValueError(
                f"mean gives {tuple(means.shape)} at {len(t)} times, expected finite numbers ({len(t)},), or ({len(t)}, "
                f"{channels}) for several channels; give mu(s)"
            )
        return InputMoments(t, lambda s: mu(s).expand(-1, channels), K)

    @property
    def channels(self) -> int:
        return self.mean(self.t[:1]).shape[-1]

    @cached_property
    def _rules(self) -> dict[int, _Rule]:
        return {}

    def rule(self, cuts: int) -> _Rule:
        """The quadrature over lags with every step cut in so many; 0 for the sums of a map. Made once."""
        if cuts not in self._rules:
            self._rules[cuts] = _rule(self, cuts)
        return self._rules[cuts]


@dataclass(frozen=True)
class _Rule:
    """Lags T - s of the nodes, (n,), increasing; their weights; steps: lengths of the panels after the first octaves; mean
    (n, input) and root (n, input, input) with root root^T = K at the nodes."""

    lags: Tensor
    weights: Tensor
    steps: Tensor
    mean: Tensor
    root: Tensor


def generalization_measure(model: SequenceModel, moments: InputMoments) -> Tensor:
    """tau(theta), how far the error on new sequences may exceed that on the training sequences:

        tau = ( int_0^T |rho(T - s)| K(s, s)^(1/2) ds + |int_0^T rho(T - s) mu(s) ds| )^2,    rho(s) = c^T e^{Ws} U.

    With high probability the gap of n sequences is at most (tau^(1/2) + 1)^2 O(log^(3/2)(T n) / n^(1/2)); and E y(T)^2 <= tau, by
    Cauchy and Schwarz, with equality where the inputs are one random number times a fixed shape. For inputs of variance 1 and
    mean 0 tau^(1/2) is |rho|_L1 on [0, T], the norm of E_m.

    What goes beyond the paper: several channels take |K^(1/2)^T rho| for |rho| K^(1/2), several outputs the sum of their tau; b
    adds the output at rest to the second integral; maps take sums over the samples; and a state-space model with a nonlinear
    readout c^T sigma(h), |sigma'| <= 1, the bound (sum_j |c_j| (tau_j^(1/2) + |sigma(0)|))^2 with tau_j of the state h_j.

    Args:
        model: linear in its state, one layer: `StateSpaceModel`, `DiscreteSSM`, and any model with activation 'linear'.
        moments: of the inputs.

    Returns:
        One value per ensemble member, in the square of the unit of y, by quadrature to some 1e-5 (|rho| has kinks), or 1e-3
        where modes turn many times between two samples; nan where they do by more than 128 radians, which is not resolved, where
        W is singular and b is not 0, and where weights are not finite.

    Raises:
        ValueError: a model of another kind or with other channels than the inputs.

    Source: [Gen] Liu and Li (2024), the bound and Eq 9. (The other cases follow by Cauchy and Schwarz in the same way.)

    Example:
        model = StateSpaceModel(1, 16, 1, "linear", "complex", "softplus")
        tau = generalization_measure(model, InputMoments.measured(t, x))
    """
    record(generalization_measure)
    return _roots(model, moments).square().sum(-1)


def rescale_readout(model: SequenceModel, moments: InputMoments) -> None:
    """Divides the readout c by tau^(1/2), so that tau is 1 and E |y(T)| <= 1 whatever the inputs' scale and pattern in time.

    That bounds the output from above alone: for inputs that are nearly white it comes out far below 1.

    Args:
        model, moments: as in `generalization_measure`.

    Raises:
        ValueError: as `generalization_measure`, or tau is 0 or not finite.

    Source: [Gen] Liu and Li (2024), Eq 8.
    """
    record(rescale_readout)
    with torch.no_grad():
        tau = generalization_measure(model, moments)
        if not (torch.isfinite(tau).all() and (tau > 0).all()):
            shown = ", ".join(f"{value:.3g}" for value in tau.flatten().tolist()[:4])
            raise ValueError(f"tau is {shown}, expected positive numbers to divide c by: start from other weights")
        model.c.div_(tau.sqrt()[..., None, None])


def measured_field(model: SequenceModel, channels: int) -> VectorField:
    """The field of a model that has a tau for inputs of so many channels.

    Raises:
        ValueError: as `generalization_measure`.
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    field = model.field()
    own = field.opaque or (model.is_map and (type(model).state_equation not in _MAPS or "state_equation" in vars(model)))
    if own or len(field.layers) != 1 or not field.linear:
        kind = "code of its own" if own else f"{len(field.layers)} layer(s) with activation {field.activation.name!r}"
        raise ValueError(
            f"the generalisation measure tau is that of one layer that is linear in its state, got model {model.name!r} of "
            f"{kind}: take model 'ssm' or activation 'linear'"
        )
    if model.input_size != channels:
        raise ValueError(f"the model takes {model.input_size} channels, the inputs have {channels}: match them")
    return field


def _numbers(name: str, values: Any, s: Tensor) -> Tensor:
    """What a law gives at times s, in float64; a number holds at all of them."""
    values = arguments.real_tensor(name, values, finite=False).detach().double().cpu()
    return values.expand_as(s) if values.ndim == 0 else values


def _roots(model: SequenceModel, moments: InputMoments) -> Tensor:
    """tau^(1/2) of each output, (*ensemble, output)."""
    arguments.instance("moments", moments, InputMoments, "make them with InputMoments.measured(t, x)")
    field = measured_field(model, moments.channels)
    (layer,) = field.layers
    if not all(torch.isfinite(one).all() for one in layer.W.tensors):
        return math.nan * field.c.sum(-1)
    plain = field.activation.linear
    # What tau is taken of: the outputs, or every state behind a nonlinear readout.
    c = field.c if plain else torch.eye(model.hidden_size).to(field.c)
    unresolved = None
    if model.is_map:
        rule, rho = moments.rule(0), _map_kernel(model, layer, c, moments.t)
    else:
        steps = moments.t.diff()
        turn = layer.W.eigenvalues().detach().imag.abs().amax(-1) * float(steps.max())
        least = max(float(turn.max()) / _TURN, _PANELS / len(steps), 1.0)
        rule, unresolved = moments.rule(min(2 ** math.ceil(math.log2(least)), _MOST_CUTS)), turn > _TURN * _MOST_CUTS
        rho = _kernel(layer, c, rule)
    weights = rule.weights.to(rho).unsqueeze(-1)
    spread = (torch.linalg.vector_norm(rho @ rule.root.to(rho), dim=-1) * weights).sum(-2)
    rest = (c @ field.rest_state(discrete=model.time == "discrete").unsqueeze(-1)).squeeze(-1)
    mean = rest + ((rho @ rule.mean.to(rho).unsqueeze(-1)).squeeze(-1) * weights).sum(-2)
    roots = spread + mean.abs()
    if not plain:
        zero = field.activation(torch.zeros_like(roots[..., :1])).abs()
        roots = (field.c.abs() @ (roots + zero).unsqueeze(-1)).squeeze(-1)
    return roots if unresolved is None else torch.where(unresolved.unsqueeze(-1), math.nan, roots)


def _rule(moments: InputMoments, cuts: int) -> _Rule:
    t = moments.t
    if cuts:
        nodes, sizes = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(_NODES))
        ends = (t[-1] - t).flip(0)
        inner = torch.arange(cuts, dtype=torch.float64) / cuts
        ends = torch.cat([(ends[:-1, None] + ends.diff()[:, None] * inner).flatten(), ends[-1:]])
        octaves = 2.0 ** -torch.arange(_OCTAVES, -1, -1, dtype=torch.float64)
        edges = torch.cat([ends[:1], ends[1] * octaves, ends[2:]])
        width = edges.diff().unsqueeze(-1)
        lags, weights = (edges[:-1, None] + width * (nodes + 1) / 2).flatten(), (width * sizes / 2).flatten()
        steps = ends[1:].diff()
    else:  # x_k acts on the next sample
        lags, weights, steps = (t[-1] - t[:-1]).flip(0), torch.ones(len(t) - 1, dtype=torch.float64), t.diff().flip(0)
    s = t[-1] - lags
    sizes, vectors = torch.linalg.eigh(moments.covariance(s))
    return _Rule(lags, weights, steps, moments.mean(s), vectors * sizes.clamp_min(0).sqrt().unsqueeze(-2))


def _kernel(layer: Layer, c: Tensor, rule: _Rule) -> Tensor:
    """c^T e^{Ws} U at the lags s of the rule, (..., n, output, input).

    Diagonal W: elementwise exponentials. Dense W: matrix exponentials in the first octaves, each the square of that before, then
    the compiled exact solve, without input, from states there.
    """
    W, U, lags = layer.W, layer.U, rule.lags.to(layer.U)
    if not isinstance(W, DenseMatrix):
        amplitude = W.to_modes(c).conj().unsqueeze(-2) * W.to_modes(U.mT).unsqueeze(-3)  # (..., output, input, modes)
        decay = torch.exp(W.eigenvalue.unsqueeze(-2) * lags.unsqueeze(-1))  # (..., n, modes)
        rho = torch.einsum("...oik,...nk->...noi", amplitude, decay)
        return rho.real if rho.is_complex() else rho
    early = _NODES * (_OCTAVES + 1)
    first, octave = _exponentials(W, lags[: 2 * _NODES]).split(_NODES, -3)
    powers = [first, octave]
    for _ in range(_OCTAVES - 1):
        powers.append(powers[-1] @ powers[-1])
    parts = [c.unsqueeze(-3) @ (torch.cat(powers, -3) @ U.unsqueeze(-3))]
    steps = rule.steps
    if len(steps) and (steps - steps.mean()).abs().max() > _EVEN * steps.mean():
        parts.append(c.unsqueeze(-3) @ (_exponentials(W, lags[early:]) @ U.unsqueeze(-3)))
    elif len(steps):
        h = (_exponentials(W, lags[early : early + _NODES]) @ U.unsqueeze(-3)).mT.flatten(-3, -2)  # (..., nodes input, m)
        h = _undriven(W, h, float(steps.mean()), len(steps)).unflatten(-3, (_NODES, U.shape[-1]))
        y = h @ c.mT[..., None, None, :, :]  # (..., nodes, input, steps, output)
        parts.append(y.movedim(-2, -4).mT.flatten(-4, -3))
    return torch.cat(parts, -3)


def _exponentials(W: DenseMatrix, lags: Tensor) -> Tensor:
    """e^{Ws}, (..., n, m, m)."""
    return torch.linalg.matrix_exp(W.W.unsqueeze(-3) * lags[:, None, None])


def _undriven(W: DenseMatrix, h0: Tensor, step: float, count: int) -> Tensor:
    """Solutions of dh/dt = W h from h0 (..., batch, m) at `count` times a step apart, (..., batch, count, m)."""
    if count == 1:
        return h0.unsqueeze(-2)
    no_input = h0.new_zeros(*h0.shape[:-2], h0.shape[-1], 1)
    field = VectorField("ssm", (Layer(W, no_input, None),), ACTIVATIONS["linear"], no_input.mT)
    times = step * torch.arange(count, dtype=torch.float64, device=h0.device)
    return Exact().solve(field, heaviside(times, h0.new_zeros(h0.shape[-2], 1)), times, h0).h


def _map_kernel(model: SequenceModel, layer: Layer, c: Tensor, t: Tensor) -> Tensor:
    """What x_k does to the output at the last sample, for k from the last but one back to 0, (..., n, output, input)."""
    W, row, rows = layer.W.to_dense(), c, []
    euler = model.time == "continuous"  # h + Dt (W h + U x), else W h + U x
    for step in t.diff().flip(0).tolist():
        rows.append((step if euler else 1.0) * (row @ layer.U))
        row = row + step * (row @ W) if euler else row @ W
    return torch.stack(torch.broadcast_tensors(*rows), -3)
