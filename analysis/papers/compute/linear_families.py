"""Linear models fitted to a kernel, and their perturbation errors under two protocols: the published one, and ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn.models import ContinuousRNN
from targets import kernels

from ...linear.curves import fitted_curves
from ...linear.fits import fit_amplitudes
from ...perturbation import PerturbationCurve
from ..engine.figure import job

# The times on which [IA] Fig 1 and 4 fit and measure.
_TIMES = np.arange(1.0, 101.0)
# The raw weights of a diagonal model.
_BLOCKS = {"w": "layers.0.recurrence.w", "U": "layers.0.U", "c": "c"}


def equispaced_rates(m: int) -> NDArray[np.float64]:
    """r_k = -log(k / (m + 1)), k = 1..m: the numbers e^{-r_k} divide [0, 1] equally.

    [IA] says "polynomial regression" in e^{-t}. Taken literally, with rates 1, ..., m, nothing of a kernel could be fitted
    beyond t = 5; these have time scales up to m + 1, and all are positive, so that every parameterisation can take them.
    """
    return -np.log(np.arange(1, m + 1) / (m + 1))


@job("linear-published-curves")
def published_curves(
    kernel: str,
    parameterization: str,
    widths: list[int],
    betas: list[float],
    ridge: float,
    draws: int,
    seed: int,
    perturbed: str = "wUc",
    unit_input: bool = False,
) -> dict[str, Any]:
    """E_m(beta) as [IA] Fig 1 and 4 have it: {"curves": `PerturbationCurve.to_dict` for each width}.

    Amplitudes by least squares on the rates of `equispaced_rates`, at t = 1..100, with ridge |rho|^2 |a|^2 added to the squared
    error. Each perturbed weight gets gaussian noise whose largest entry is beta; of some draws, and of all smaller beta, the
    largest

        E = max_{t = 1..100} |rho(t) - rho_hat(t)|

    counts (the paper does not name the norm over t).

    Args:
        kernel: name with parameters, 'polynomial:exponent=1.1'.
        parameterization: of the diagonal linear models.
        widths: m.
        betas: increasing.
        ridge: 0 for plain least squares, whose large amplitudes of opposite sign then decide what perturbations do.
        draws, seed: of the noise, drawn anew at each beta.
        perturbed: which of w, U and c.
        unit_input: U = 1 and c the amplitudes, in place of |u_j| = c_j.
    """
    rho = kernels.load(kernel)
    values = torch.from_numpy(rho.values(_TIMES)[:, 0])
    generator = torch.Generator().manual_seed(seed)
    curves = []
    for m in widths:
        fit = fit_amplitudes(rho, equispaced_rates(m), _TIMES, ridge * float(values @ values))
        model = fit.model(parameterization)
        if unit_input:
            with torch.no_grad():
                model.c.copy_(torch.from_numpy(fit.amplitudes))
                model.layer_weights[0].U.fill_(1.0)
        curves.append(_sampled_curve(model, values, betas, draws, generator, perturbed).to_dict())
    return {"curves": curves}


def _sampled_curve(
    model: ContinuousRNN, values: Tensor, betas: list[float], draws: int, generator: torch.Generator, perturbed: str
) -> PerturbationCurve:
    weights = dict(model.named_parameters())
    w, U, c = (weights[name].detach().flatten() for name in _BLOCKS.values())
    chosen = torch.tensor([[float(name in perturbed)] for name in _BLOCKS], dtype=torch.float64)
    f, t, m = model.parameterization, torch.from_numpy(_TIMES).unsqueeze(1), model.hidden_size

    def error(noise: Tensor) -> Tensor:
        """E of perturbed models; noise (draws, 3, m)."""
        amplitude = (U + noise[:, 1]) * (c + noise[:, 2])
        rho_hat = (amplitude.unsqueeze(1) * torch.exp(t * f(w + noise[:, 0]).unsqueeze(1))).sum(-1)
        # inf - inf: the model diverges.
        return (values - rho_hat).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).amax(-1)

    searched = []
    for beta in betas:
        noise = torch.randn(draws, 3, m, dtype=torch.float64, generator=generator)
        searched.append(float(error(beta * chosen * noise / noise.abs().amax(-1, keepdim=True)).max()))
    return PerturbationCurve(
        betas=np.array(betas),
        errors=np.maximum.accumulate(searched),
        searched=np.array(searched),
        initial=float(error(torch.zeros(1, 3, m, dtype=torch.float64))),
        scale=float(values.abs().max()),
        power=1,
        hidden_size=m,
        horizon=float(_TIMES[-1]),
        error="kernel_sup",
        search="sample",
        norm="max",
        blocks=tuple(name for short, name in _BLOCKS.items() if short in perturbed),
        block_choice="all" if len(perturbed) == len(_BLOCKS) else "named",
        evaluations=draws * len(betas),
        model=model.config(),
    )


@job("linear-ascent-curves")
def ascent_curves(
    kernel: str,
    parameterization: str,
    widths: list[int],
    betas: list[float],
    horizon: float,
    blocks: list[str],
    draws: int,
    restarts: int,
    seed: int,
) -> dict[str, Any]:
    """E_m(beta) of variable projection fits by ascent, in the L1 distance of kernels on [0, horizon]: {"curves": for each width
    one for each of `blocks`}.

    Args:
        kernel: name with parameters, 'polynomial:exponent=1.1'.
        parameterization, widths, horizon: of the fits.
        betas: increasing.
        blocks: choices of perturbed weights, 'recurrent' or 'all'.
        draws, restarts: of the search.
        seed: of fits and search.
    """
    rho = kernels.load(kernel)
    curves = fitted_curves(rho, parameterization, widths, horizon, betas, blocks, seed, draws=draws, restarts=restarts)
    return {"curves": [curve.to_dict() for curve in curves]}
