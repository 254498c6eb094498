"""Stability of W in dh/dt = W h: how far the spectrum, and how far the weights, are from instability.

Layers are judged by their W alone, that is by the linearisation at rest of activations with sigma'(0) = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn.citations import record
from odernn.models import SequenceModel
from odernn.parameterizations import Time
from odernn.recurrences import RECURRENCES
from targets import arguments

from .results import Result

ComplexArray = NDArray[np.complex128]

# Relative accuracy of the complex stability radius.
_RADIUS_ACCURACY = 1e-9
# Levels of the radius search: it converges quadratically and takes about five.
_MAX_LEVELS = 60
# An eigenvalue of the Hamiltonian counts as imaginary within this part of the matrix's norm: near the radius two of them meet on
# the axis, where rounding moves them apart by sqrt(eps) of the norm.
_ON_AXIS = 1e-7
# Frequencies beside the eigenvalues' own at which the first upper bound is taken.
_FIRST_FREQUENCIES = 16


def spectral_abscissa(W: Tensor) -> Tensor:
    """max Re l over the eigenvalues of W (..., m, m), shape (...,).

    Example:
        >>> import torch
        >>> from analysis import spectral_abscissa
        >>> float(spectral_abscissa(torch.tensor([[-1.0, 4.0], [0.0, -0.5]])))
        -0.5
    """
    return torch.linalg.eigvals(_matrix(W)).real.amax(-1)


def stability_margin(model: SequenceModel) -> Tensor:
    """Distance of the spectrum of all layers of a model from instability, (*ensemble,); negative: unstable. See
    `SequenceModel.stability_margin`.

    Example:
        >>> import torch
        >>> from analysis import stability_margin
        >>> from odernn import ContinuousRNN
        >>> model = ContinuousRNN(1, 2, 1)
        >>> model.set_matrix(torch.tensor([[-1.0, 0.0], [0.0, -0.5]]))
        >>> round(stability_margin(model).item(), 6)
        0.5
    """
    _require_model(model)
    return model.stability_margin()


def complex_stability_radius(W: Tensor, time: Time = "continuous") -> float:
    """The spectral norm of the smallest complex D for which W + D is unstable:

        r = min over z on the stability boundary of sigma_min(z I - W) = 1 / max_w |(i w I - W)^-1|,

    to 1e-9 of it; 0 for a W that is unstable already. The boundary is the imaginary axis in continuous time and the unit circle
    in discrete time.

    sigma is a singular value of i w I - W for some w if and only if i w is an eigenvalue of the Hamiltonian [[W, -s I], [s I,
    -W^T]] at s = sigma. A level s below the upper bound either has no imaginary eigenvalues, which proves r > s, or those cut
    the axis in intervals whose midpoints give a better bound: bisection, sped up to quadratic convergence.

    Args:
        W: (m, m), real.
        time: 'continuous' or 'discrete'.

    Raises:
        ValueError: W is not a finite square matrix.

    Example:
        >>> import torch
        >>> from analysis import complex_stability_radius
        >>> round(complex_stability_radius(torch.tensor([[-1.0, 100.0], [0.0, -1.0]])), 4)  # far below the margin, 1
        0.01

    Source: Byers, SIAM J. Sci. Stat. Comput. 9 (1988) [Byers1988]; Boyd and Balakrishnan, Syst. Control Lett. 15 (1990)
    [Boyd1990].
    """
    record(complex_stability_radius)
    arguments.choice("time", time, get_args(Time))
    A = _matrix(arguments.real_tensor("W", W)).detach().cpu().double().numpy()
    if A.ndim != 2:
        raise ValueError(f"W must be one matrix (m, m), got {A.shape}: take the members of an ensemble one by one")
    spectrum = np.linalg.eigvals(A)
    margin = -spectrum.real.max() if time == "continuous" else 1 - np.abs(spectrum).max()
    if margin <= 0:
        return 0.0
    angles = spectrum.imag if time == "continuous" else np.angle(spectrum)
    spread = max(np.abs(spectrum).max(), 1e-300) if time == "continuous" else math.pi
    angles = np.concatenate([angles, [0.0], np.linspace(-spread, spread, _FIRST_FREQUENCIES)])
    upper = _smallest_singular_value(A, angles, time)
    for _ in range(_MAX_LEVELS):
        level = upper * (1 - _RADIUS_ACCURACY)
        crossings = _crossings(A, level, time)
        if crossings.size == 0:
            break
        # Between consecutive crossings sigma_min lies on one side of the level; where below, a midpoint shows it.
        ends = crossings if time == "continuous" else np.append(crossings, crossings[0] + 2 * math.pi)
        middles = (ends[1:] + ends[:-1]) / 2 if ends.size > 1 else ends
        found = _smallest_singular_value(A, np.concatenate([middles, crossings]), time)
        if found >= level:
            break  # the crossings were two eigenvalues that rounding put on the axis
        upper = found
    return float(upper)


def structured_radius(model: SequenceModel) -> float:
    """The smallest perturbation of the eigenvalues l, each on its own, that makes a model unstable: exactly the margin,
    min |Re l| (continuous) or 1 - max |l| (discrete).

    For diagonal W it is the radius among diagonal perturbations; for symmetric W = P^T diag(l) P with P orthogonal, the one
    among perturbations that share P, and, W being normal, also the complex stability radius. 0 where unstable already.

    Raises:
        ValueError: a recurrence that is not modal (`odernn.recurrences.Recurrence`), such as 'dense', or an ensemble.

    Example:
        >>> import torch
        >>> from analysis import structured_radius
        >>> from odernn import ContinuousRNN
        >>> model = ContinuousRNN(1, 2, 1, recurrence="diagonal", dtype=torch.float64)
        >>> model.set_matrix(torch.diag(torch.tensor([-1.0, -0.5])))
        >>> structured_radius(model)
        0.5
    """
    _require_single(model)
    if not _modal(model):
        modal = ", ".join(name for name, recurrence in RECURRENCES.items() if recurrence.modal)
        raise ValueError(
            f"a structured radius needs a recurrence in {modal}, got {model.config()['recurrence']!r}: "
            "use complex_stability_radius(W)"
        )
    return max(0.0, float(model.stability_margin().detach()))


def raw_radius(model: SequenceModel) -> float:
    """The smallest perturbation of the raw weights w, in max-norm, that makes a model unstable: min |w - w*| over f(w*) on the
    stability boundary. inf for the stable parameterisations, whose f never reaches it; for 'direct' the margin.

    Raises:
        ValueError: as `structured_radius`.

    Example:
        >>> from analysis import raw_radius
        >>> from odernn import ContinuousRNN
        >>> raw_radius(ContinuousRNN(1, 2, 1, recurrence="diagonal", parameterization="softplus"))
        inf
    """
    radius = structured_radius(model)
    return math.inf if model.parameterization.stable else radius


def gradient_over_weight(model: SequenceModel) -> dict[str, Tensor]:
    """max |dLoss/dw| / |w| over the entries of each raw recurrent weight, by name, (*ensemble,); after `loss.backward()`.

    The relative size of one gradient step of the model: training is stable for learning rates below its inverse.

    Raises:
        ValueError: no gradients yet.

    Example:
        >>> import torch
        >>> from analysis import gradient_over_weight
        >>> from odernn import ContinuousRNN
        >>> model = ContinuousRNN(1, 4, 1, "tanh", "diagonal", seed=0)
        >>> model(torch.ones(1, 11, 1), torch.linspace(0, 1, 11)).square().mean().backward()
        >>> list(gradient_over_weight(model))
        ['layers.0.recurrence.w']

    Source: [StableSSM] 3.4.
    """
    record(gradient_over_weight)
    _require_model(model)
    ratios, known = {}, model.raw_weights()
    for name, weight in model.named_parameters():
        if not known[name].recurrent:
            continue
        if weight.grad is None:
            raise ValueError(f"{name} has no gradient: call loss.backward() first")
        ratio = (weight.grad / weight.detach()).abs()
        # An entry that is 0 with gradient 0 (A at the start) is at rest: 0 / 0 counts as 0.
        ratio = torch.where(weight.grad == 0, torch.zeros_like(ratio), ratio)
        ratios[name] = ratio.flatten(len(model.ensemble)).amax(-1)
    return ratios


@dataclass(frozen=True, eq=False, repr=False)
class StabilityReport(Result):
    """The stability of one model, that of its worst layer.

    Args:
        margin: of the spectrum; negative: unstable.
        abscissa: max Re l.
        complex_radius: of W under any perturbation.
        structured: of the eigenvalues, None where the recurrence has none of its own.
        raw: of the raw weights, None alike; inf for stable parameterisations.

    Example:
        >>> import torch
        >>> from analysis import stability_report
        >>> from odernn import ContinuousRNN
        >>> model = ContinuousRNN(1, 2, 1, recurrence="diagonal", dtype=torch.float64)
        >>> model.set_matrix(torch.diag(torch.tensor([-1.0, -0.5])))
        >>> report = stability_report(model)
        >>> report.margin, report.structured, report.raw
        (0.5, 0.5, 0.5)
    """

    margin: float
    abscissa: float
    complex_radius: float
    structured: float | None
    raw: float | None


def stability_report(model: SequenceModel) -> StabilityReport:
    """Margin and radii of one model.

    Raises:
        ValueError: an ensemble: take its members one by one.

    Example:
        >>> from analysis import stability_report
        >>> from odernn import ContinuousRNN
        >>> report = stability_report(ContinuousRNN(1, 4, 1, "tanh", "diagonal", "softplus", seed=0))
        >>> report.raw, report.margin > 0
        (inf, True)
    """
    _require_single(model)
    with torch.no_grad():
        matrices = [layer.W.to_dense() for layer in model.field().layers]
        return StabilityReport(
            margin=float(model.stability_margin()),
            abscissa=max(float(spectral_abscissa(W)) for W in matrices),
            complex_radius=min(complex_stability_radius(W, model.time) for W in matrices),
            structured=structured_radius(model) if _modal(model) else None,
            raw=raw_radius(model) if _modal(model) else None,
        )


def _modal(model: SequenceModel) -> bool:
    return all(layer.recurrence.modal for layer in model.layer_weights)


def _require_model(model: SequenceModel) -> None:
    arguments.instance("model", model, SequenceModel, "give a model of odernn")


def _require_single(model: SequenceModel) -> None:
    _require_model(model)
    if model.ensemble:
        raise ValueError(f"radii are of one model, got an ensemble {model.ensemble}: take its members one by one")


def _matrix(W: Tensor) -> Tensor:
    W = arguments.real_tensor("W", W, or_complex=True)
    if W.ndim < 2 or W.shape[-1] != W.shape[-2] or not W.numel():
        raise ValueError(f"W must be (..., m, m), m > 0, got {tuple(W.shape)}")
    # there are no eigenvalues in half precision
    return W.float() if W.dtype in (torch.float16, torch.bfloat16) else W


def _smallest_singular_value(A: NDArray[np.float64], angles: NDArray[np.float64], time: Time) -> float:
    """min over the angles of sigma_min(z I - A), z = i w or e^{i w}."""
    z = 1j * angles if time == "continuous" else np.exp(1j * angles)
    shifted = z[:, None, None] * np.eye(len(A)) - A
    return float(np.linalg.svd(shifted, compute_uv=False)[:, -1].min())


def _crossings(A: NDArray[np.float64], level: float, time: Time) -> NDArray[np.float64]:
    """Frequencies, sorted, at which `level` is a singular value of z I - A.

    In discrete time: the eigenvalues on the unit circle of the symplectic pencil [[A, s I], [0, I]] - z [[I, 0], [s I, A^T]].
    """
    eye = np.eye(len(A))
    if time == "continuous":
        hamiltonian = np.block([[A, -level * eye], [level * eye, -A.T]])
        values: ComplexArray = np.linalg.eigvals(hamiltonian)
        near = np.abs(values.real) <= _ON_AXIS * max(float(np.linalg.norm(hamiltonian, 2)), level)
        return np.sort(values[near].imag)
    left = np.block([[A, level * eye], [0 * eye, eye]])
    right = np.block([[eye, 0 * eye], [level * eye, A.T]])
    values = scipy.linalg.eigvals(left, right)
    values = values[np.isfinite(values)]
    near = np.abs(np.abs(values) - 1) <= _ON_AXIS
    return np.sort(np.angle(values[near]))
