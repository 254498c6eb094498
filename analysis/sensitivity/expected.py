"""Exact expectations over a stationary input, of linear models: the loss, its Gauss-Newton curvature, sensitivities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call, jacfwd

from odernn.models import SequenceModel
from targets import arguments

from .modes import pair_moments
from .noise import Noise, WhiteNoise
from .poles import Poles, impulse_response, poles


def expected_loss(model, target, noise=WhiteNoise(), *, dt=None, horizon=None):
    if horizon is not None:
        g, target_g = (impulse_response(one, horizon - 1) for one in (model, target))
        k = torch.arange(1, horizon, dtype=g.dtype, device=g.device)
        return ((1 - k / horizon) * (g - target_g) ** 2).sum((-2, -1)) / model.output_size
    own, other = poles(model, dt=dt), poles(target, dt=dt)
    l = torch.cat(torch.broadcast_tensors(own.l, own.l)[:1] + (other.l.expand(*own.l.shape[:-1], -1),), -1)
    a = torch.cat([own.a, -other.a.expand(*own.a.shape[:-1], -1)], -1)
    moments = pair_moments(l, noise, own.time, own.step)
    flat = a.flatten(-3, -2)
    value = (flat @ moments.hh * flat).sum((-2, -1)).real / model.output_size
    stable = moments.stationary.flatten(-2).all(-1)
    return value.clamp_min(0) / stable.to(value)


@dataclass(frozen=True)
class WeightMoments:
    G: Tensor
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def rows(self, *names):
        ends = torch.tensor([math.prod(s) for s in self.shapes]).cumsum(0).tolist()
        return [k for n, s, e in zip(self.names, self.shapes, ends) if n in names for k in range(e - math.prod(s), e)]

    def by_name(self):
        parts = self.G.diagonal().split([math.prod(s) for s in self.shapes])
        return {n: p.reshape(s) for n, p, s in zip(self.names, parts, self.shapes)}


def expected_gauss_newton(model, noise=WhiteNoise(), *, of="output", dt=None):
    """E (dy/dtheta_k)(dy/dtheta_l), summed over outputs."""
    weights = {n: w.detach() for n, w in model.named_parameters() if w.requires_grad}
    holder = _Poles(model, of, dt)
    values = holder(True)

    def flat(w):
        l, a = functional_call(holder, {f"model.{n}": v for n, v in w.items()}, (False,))
        return torch.view_as_real(l), torch.view_as_real(a)

    Jl, Ja = jacfwd(flat)(weights)
    # drop bias etc. is zero
    def stacked(J, lead):
        parts = [torch.view_as_complex(J[n].flatten(lead + 1).movedim(lead, -1).contiguous()) for n in weights]
        return torch.cat(parts, -1).movedim(-1, 0)  # (K, ...)
    dl, da = stacked(Jl, 1), stacked(Ja, 3)  # (K, P), (K, o, i, P)
    p = holder(True)
    moments = pair_moments(p.l.detach(), noise, p.time, p.step)
    beta = (p.a.detach() * dl[:, None, None, :]).flatten(1, 2)  # of S
    alpha = da.flatten(1, 2)
    def form(u, M, v):
        return torch.einsum("kop,pq,loq->kl", u, M, v)
    cross = form(beta, moments.Sh, alpha)
    G = (form(alpha, moments.hh, alpha) + cross + cross.mT + form(beta, moments.SS, beta)).real
    bad = ~moments.stationary.diagonal()
    touched = ((alpha.abs() + beta.abs())[..., bad].sum((-2, -1)) > 0)
    inf = touched[:, None] & touched
    G = torch.where(inf, math.inf, G)
    return WeightMoments(G, tuple(weights), tuple(tuple(w.shape) for w in weights.values()))


class _Poles(torch.nn.Module):
    def __init__(self, model, of, dt):
        super().__init__()
        self.model, self.of, self.dt = model, of, dt

    def forward(self, whole):
        p = poles(self.model, of=self.of, dt=self.dt)
        return p if whole else (p.l, p.a)
