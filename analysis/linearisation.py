"""The slowest observable mode of a model's linearisation at rest, at whose rate the memory of a small input ends."""

from __future__ import annotations

import math

import torch

from odernn import SequenceModel

from .probes import dynamics

# A mode counts as observed if input and readout meet it by more than this part of the most observed one.
_OBSERVED = 1e-10
# Eigenvectors of a (nearly) defective matrix tell no mode from another: beyond this condition number all count as observed.
_DEFECTIVE = 1e8
# States beyond this size are not linearised along the way: the eigenvalues would take longer than the memory function.
_LARGEST_STATE = 1024


def spectrum_rate(model: SequenceModel, dt: float = 1.0) -> float | None:
    """Rate, 1/time, of the slowest mode of dh/dt = F(h, 0) at rest that the input excites and the readout sees:

        -max Re l                  l: eigenvalues of dF/dh at rest (flow)
        -log(max |l|) / dt         (map)

    For a "ssm" of one layer dF/dh is W; for an "rnn" diag(sigma'(z)) W with z the rest drive, so that the rates of W are
    multiplied by slopes in (0, 1]. Negative: rest is unstable, and the memory ends elsewhere.

    Args:
        model: without ensemble axes.
        dt: time of one step of a map.

    Returns:
        The rate, or None for an ensemble, a state above 1024 entries, or where there is no rest.
    """
    if model.ensemble or not torch.isfinite(model.rest_state()).all():
        return None
    system = dynamics(model, dt=dt)
    if system.size > _LARGEST_STATE:
        return None
    h = system.rest().detach().unsqueeze(0)
    field = model.field()
    if not field.rests(h):
        return None
    x = torch.zeros(1, system.input_size, dtype=h.dtype, device=h.device)
    J = system.jacobian(h, x)[0].double()
    B = torch.autograd.functional.jacobian(lambda u: system(h, u)[0], x)[:, 0].double()
    C = torch.autograd.functional.jacobian(lambda s: field.readout(s.unsqueeze(0))[0], h[0]).double()
    if not torch.isfinite(J).all():
        return None
    modes, vectors = torch.linalg.eig(J)
    if float(torch.linalg.cond(vectors)) < _DEFECTIVE:
        excited = torch.linalg.solve(vectors, B.to(vectors)).abs().amax(-1)
        seen = (C.to(vectors) @ vectors).abs().amax(0)
        strength = excited * seen
        modes = modes[strength > _OBSERVED * strength.amax()]
    if not modes.numel():
        return None
    rate = -float(modes.real.max()) if system.kind == "flow" else -math.log(max(float(modes.abs().max()), 1e-300)) / dt
    return rate if math.isfinite(rate) else None
