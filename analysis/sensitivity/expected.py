"""Exact expectations over stationary inputs, of linear models: their loss, and how it depends on every weight."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd

from odernn.citations import record
from odernn.models import SequenceModel
from targets import arguments

from . import forward_mode
from .modes import pair_moments
from .noise import WHITE, Noise, WhiteNoise
from .poles import Observed, Poles, impulse_response, poles
from .weight_matrix import WeightMatrix, check_weights


def expected_loss(
    model: SequenceModel,
    target: SequenceModel,
    noise: Noise = WHITE,
    *,
    horizon: int | None = None,
    dt: float | None = None,
) -> Tensor:
    """E |y - y*|^2 / outputs of two linear models under one input: what `odernn.losses.mse` comes to on endless data.

    With the poles z_p of both and the residues a_p, those of the target with the opposite sign,

        E (y - y*)^2 = sum_pq a_p a_q E h_p h_q,

    differentiable, with exact gradients. ([VEG] has half of it.)

    Args:
        model, target: linear, one layer, of as many inputs and outputs, both in continuous time or both maps. Either may be an
            ensemble.
        noise: the input, `WhiteNoise()`, `OrnsteinUhlenbeck(timescale)` or, of maps, `Correlated(R)`.
        horizon: None for the stationary loss. A number of samples T for maps on white noise, which start from rest:
            sum_k (1 - k/T) (g_k - g*_k)^2, the mean over the first T outputs. It is finite for unstable maps, too.
        dt: time between two samples of a map, 1 by default; a `DiscreteRNN` must be given it.

    Returns:
        (*ensemble,), in double precision; inf where a mode of model or target does not decay, with a gradient that is not
        finite. (Weights in single precision leave 1 - |z| of a slow map few digits: give such models float64.)

    Raises:
        ValueError: models that do not fit, or are not linear.

    Source: for one mode and white noise [VEG] 4; a student of theirs is trained on drawn inputs.

    Example:
        student = DiscreteSSM(1, 8, 1, "linear", "complex", "exp", dtype=torch.float64)
        expected_loss(student, teacher, OrnsteinUhlenbeck(10.0)).backward()
    """
    record(expected_loss)
    for name, one in (("model", model), ("target", target)):
        arguments.instance(name, one, SequenceModel, "give a model of odernn")
    sizes = [(one.input_size, one.output_size) for one in (model, target)]
    if sizes[0] != sizes[1] or model.is_map != target.is_map:
        kinds = [f"{type(one).__name__} of {one.input_size} inputs and {one.output_size} outputs" for one in (model, target)]
        raise ValueError(
            f"model and target do not fit, a {kinds[0]} and a {kinds[1]}; take two maps or two models in continuous time, of one "
            "size"
        )
    arguments.instance("noise", noise, Noise, "give WhiteNoise() or OrnsteinUhlenbeck(timescale)")
    if horizon is not None:
        return _finite_loss(model, target, noise, arguments.count("horizon", horizon, least=2), dt)
    own, other = poles(model, dt=dt), poles(target, dt=dt)
    members = torch.broadcast_shapes(own.z.shape[:-1], other.z.shape[:-1])
    z = torch.cat([one.z.expand(*members, -1) for one in (own, other)], -1)
    a = torch.cat([sign * one.a.flatten(-3, -2).expand(*members, -1, -1) for sign, one in ((1, own), (-1, other))], -1)
    moments = pair_moments(z, noise, own.time, own.step)
    squares = ((a @ moments.hh) * a).sum((-2, -1)).real + (own.mean - other.mean).square().sum(-1)
    # Rounding may leave less than 0 at the minimum: moved to 0, with its derivatives.
    squares = squares - squares.detach().clamp_max(0)
    # x / 0 is inf, and its gradient is not finite.
    return squares / moments.stationary.flatten(-2).all(-1).to(squares) / model.output_size


def _finite_loss(model: SequenceModel, target: SequenceModel, noise: Noise, horizon: int, dt: float | None) -> Tensor:
    if not isinstance(noise, WhiteNoise):
        raise ValueError(f"the loss on a horizon is that of white noise, got {noise!r}; leave horizon out, or noise")
    g, target_g = (impulse_response(one, horizon - 1, dt=dt) for one in (model, target))
    weights = 1 - torch.arange(1, horizon).to(g) / horizon
    means = [(one.field().c @ one.rest_state().unsqueeze(-1)).squeeze(-1) for one in (model, target)]
    squares = (weights * (g - target_g).square()).sum((-3, -2, -1)) + (means[0] - means[1]).double().square().sum(-1)
    return squares / model.output_size


def expected_gauss_newton(
    model: SequenceModel, noise: Noise = WHITE, *, of: Observed = "output", dt: float | None = None
) -> WeightMatrix:
    """G_kl = E sum_o (dy_o/dtheta_k)(dy_o/dtheta_l) over the trained weights of a linear model, exactly.

    With poles z_p and residues a_p, h_p the modes and S_p = dh_p/dz_p,

        dy/dtheta = sum_p (da_p/dtheta h_p + a_p dz_p/dtheta S_p),

    where da/dtheta holds what the parameterisation makes of the input scale gamma. 2 G / outputs is the Hessian of
    `expected_loss` at its minimum, and the Gauss-Newton part of it for any target that is independent of the weights.

    Args:
        model: linear, one layer, not an ensemble.
        noise, dt: as in `expected_loss`.
        of: 'output' for y, 'state' for the sensitivity of h.

    Returns:
        G; .by_name() its diagonal, the sensitivities. inf in the rows and columns of weights that a mode which does not decay
        depends on.

    Raises:
        ValueError: a model that is not linear, an ensemble, a model without trained weights or with more than 4096.

    Source: for one mode [VEG] Eqs. 5 and 6.

    Example:
        G = expected_gauss_newton(model)
        G.by_name()["layers.0.recurrence.w"]           # E |dy/dw|^2, mode by mode
        2 * G.largest                                  # the largest curvature at the minimum
    """
    record(expected_gauss_newton)
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    arguments.instance("noise", noise, Noise, "give WhiteNoise() or OrnsteinUhlenbeck(timescale)")
    if model.ensemble:
        raise ValueError(f"the model is an ensemble of shape {model.ensemble}; give one member at a time")
    # In double precision whatever the model's: 1 - |z| of slow modes has few digits in single precision.
    model = copy.deepcopy(model).double()
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    check_weights(weights, "freeze some with requires_grad_(False)")
    along = _AsModule(model, of, dt)
    with torch.no_grad():
        here = poles(model, of=of, dt=dt)
        moments = pair_moments(here.z, noise, here.time, here.step)

    def parts(weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = functional_call(along, {f"model.{name}": weight for name, weight in weights.items()}, ())
        return *(torch.view_as_real(part) for part in (found.z, found.a, found.bias)), found.mean

    forward_mode.load()
    dz, da, dbias, dmean = (_by_weight(part, weights) for part in jacfwd(parts)(weights))
    # (K, output * input, P), of h_p and of S_p
    of_h = torch.view_as_complex(da.contiguous()).flatten(1, 2)
    of_S = (here.a * torch.view_as_complex(dz.contiguous())[:, None, None]).flatten(1, 2)
    mixed = _form(of_S, moments.Sh, of_h)
    G = (_form(of_h, moments.hh, of_h) + mixed + mixed.mT + _form(of_S, moments.SS, of_S)).real + dmean @ dmean.mT
    of_all = torch.cat([of_h, of_S, torch.view_as_complex(dbias.contiguous())], 1)
    touched = (of_all[..., ~here.decays] != 0).flatten(1).any(-1)
    G = torch.where(touched.unsqueeze(-1) & touched, math.inf, (G + G.mT) / 2)
    return WeightMatrix(G, tuple(weights), tuple(tuple(weight.shape) for weight in weights.values()))


def expected_sensitivity(
    model: SequenceModel, noise: Noise = WHITE, *, of: Observed = "state", dt: float | None = None
) -> dict[str, Tensor]:
    """E |dh/dtheta|^2 of every raw weight, by name and in its shape: the diagonal of `expected_gauss_newton`.

    One mode of rate rho under white noise of unit intensity, U = 1: |f'(w)|^2 / (4 rho^3).

    Args:
        model, noise, dt: as there.
        of: 'state' for h, 'output' for y.

    Returns:
        Tensors; inf for the weights of a mode that does not decay.

    Example:
        expected_sensitivity(StateSpaceModel(1, 8, 1, "linear", "diagonal", "exp"))["layers.0.recurrence.w"]
    """
    return expected_gauss_newton(model, noise, of=of, dt=dt).by_name()


def _form(left: Tensor, moments: Tensor, right: Tensor) -> Tensor:
    """sum over outputs, inputs and pairs of poles, (K, K)."""
    return torch.einsum("kop,pq,loq->kl", left, moments, right)


def _by_weight(jacobian: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
    """(K, *shape) of derivatives (*shape, *weight) by name."""
    parts = [
        jacobian[name].reshape(*jacobian[name].shape[: jacobian[name].ndim - weight.ndim], -1) for name, weight in weights.items()
    ]
    return torch.cat(parts, -1).movedim(-1, 0)


class _AsModule(nn.Module):
    """The poles of a model as a module, for `torch.func.functional_call`."""

    def __init__(self, model: SequenceModel, of: Observed, dt: float | None) -> None:
        super().__init__()
        self.model, self.of, self.dt = model, of, dt

    def forward(self) -> Poles:
        return poles(self.model, of=self.of, dt=self.dt)
