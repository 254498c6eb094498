from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64

from analysis.stability import (
    StabilityReport,
    complex_stability_radius,
    gradient_over_weight,
    raw_radius,
    spectral_abscissa,
    stability_report,
    structured_radius,
)
from odernn import ContinuousRNN, DiscreteSSM
from odernn.ensembles import replicate
from odernn.recurrences import RECURRENCES
from odernn.solvers import TorchDiffEq


def stable_matrix(m, seed, margin=0.1, triangular=False):
    """A random W, far from normal if triangular, with max Re l = -margin."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(m, m, generator=generator, dtype=F64)
    if triangular:
        W = 3 * W.triu()
    return W - (spectral_abscissa(W) + margin) * torch.eye(m, dtype=F64)


def in_discrete_time(W):
    return W / (1.1 * torch.linalg.eigvals(W).abs().max())


def brute_force(W, circle=False):
    """min over a fine grid of frequencies of sigma_min, from above."""
    reach = math.pi if circle else 3 * float(torch.linalg.matrix_norm(W, 2))
    w = np.linspace(-reach, reach, 40_001)
    z = np.exp(1j * w) if circle else 1j * w
    return np.linalg.svd(z[:, None, None] * np.eye(len(W)) - W.numpy(), compute_uv=False)[:, -1].min()


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    margin=st.floats(1e-3, 3.0),
    triangular=st.booleans(),
)
def test_the_complex_radius_is_the_inverse_of_python_controls_h_infinity_norm(m, seed, margin, triangular):
    control = pytest.importorskip("control")
    W = stable_matrix(m, seed, margin, triangular)
    system = control.ss(W.numpy(), np.eye(m), np.eye(m), np.zeros((m, m)))
    norm = control.system_norm(system, p="inf", method="scipy", tol=1e-9)
    assert complex_stability_radius(W) == pytest.approx(1 / norm, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("triangular", [False, True])
def test_the_complex_radius_is_the_least_singular_value_along_the_boundary(seed, triangular):
    W = stable_matrix(3, seed, triangular=triangular)
    # The grid errs upwards, by little.
    assert complex_stability_radius(W) == pytest.approx(brute_force(W), rel=1e-3)
    V = in_discrete_time(W)
    assert complex_stability_radius(V, "discrete") == pytest.approx(brute_force(V, circle=True), rel=1e-3)


def test_a_perturbation_of_the_size_of_the_radius_reaches_the_boundary_and_no_smaller_one_does():
    W = stable_matrix(4, seed=1, triangular=True)
    radius = complex_stability_radius(W)
    w = torch.linspace(-20, 20, 20_001, dtype=F64)
    shifted = 1j * w.reshape(-1, 1, 1) * torch.eye(4, dtype=F64) - W
    U, S, V = torch.linalg.svd(shifted)
    worst = S[:, -1].argmin()
    D = S[worst, -1] * torch.outer(U[worst, :, -1], V[worst, -1])  # of rank one, |D| = sigma_min
    assert torch.linalg.matrix_norm(D, 2).item() == pytest.approx(radius, rel=1e-4)
    assert abs(spectral_abscissa(W + D).item()) < 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        E = torch.randn(4, 4, generator=generator, dtype=F64)
        E = 0.999 * radius * E / torch.linalg.matrix_norm(E, 2)
        assert spectral_abscissa(W + E) < 0


def test_for_normal_matrices_the_radius_is_the_margin():
    Q = torch.linalg.qr(torch.randn(5, 5, dtype=F64, generator=torch.Generator().manual_seed(0)))[0]
    W = Q @ torch.diag(torch.tensor([-0.2, -1, -2, -3, -4], dtype=F64)) @ Q.mT
    assert complex_stability_radius(W) == pytest.approx(0.2, rel=1e-8)


def test_for_matrices_far_from_normal_the_radius_is_far_below_the_margin():
    W = torch.tensor([[-1.0, 100.0], [0.0, -1.0]], dtype=F64)
    assert -spectral_abscissa(W) == 1
    assert complex_stability_radius(W) < 0.02


def test_an_unstable_matrix_has_radius_zero():
    assert complex_stability_radius(torch.eye(2, dtype=F64)) == 0
    assert complex_stability_radius(2 * torch.eye(2, dtype=F64), "discrete") == 0


@pytest.mark.parametrize("recurrence", [name for name, cls in RECURRENCES.items() if cls.modal])
def test_structured_and_raw_radii_are_exact(recurrence):
    model = ContinuousRNN(1, 4, 1, "tanh", recurrence, "direct", dtype=F64)
    radius = structured_radius(model)
    assert raw_radius(model) == radius
    for factor, stable in ((0.999, True), (1.001, False)):
        moved = replicate(model, 1)
        with torch.no_grad():
            moved.layer_weights[0].recurrence.w += factor * radius
        assert (moved.stability_margin() > 0).item() == stable


@pytest.mark.parametrize("parameterization", ["exp", "softplus", "inverse", "lru"])
def test_stable_parameterisations_have_an_infinite_raw_radius(parameterization):
    model = ContinuousRNN(1, 4, 1, "tanh", "symmetric", parameterization, dtype=F64)
    assert raw_radius(model) == math.inf
    assert structured_radius(model) == pytest.approx(model.stability_margin().item())


def test_the_report_of_a_stack_is_that_of_its_worst_layer():
    model = ContinuousRNN(1, 3, 1, "tanh", "dense", num_layers=2, dtype=F64)
    weak = stable_matrix(3, seed=5, margin=0.01)
    model.set_matrix(weak, layer=1)
    report = stability_report(model)
    assert report.margin == pytest.approx(0.01)
    assert report.abscissa == pytest.approx(-0.01)
    assert report.complex_radius == pytest.approx(complex_stability_radius(weak))
    assert report.structured is None
    assert report.raw is None


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False), min_size=5, max_size=5), modal=st.booleans())
def test_every_report_comes_back_from_json(numbers, modal):
    report = StabilityReport(*numbers[:3], *(numbers[3:] if modal else (None, None)))
    assert StabilityReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))) == report


def test_the_report_judges_discrete_models_by_the_unit_circle():
    model = DiscreteSSM(1, 4, 1, "tanh", "diagonal", "direct", dtype=F64)
    model.set_matrix(torch.diag(torch.tensor([0.9, 0.5, -0.95, 0.1], dtype=F64)))
    report = stability_report(model)
    assert report.margin == pytest.approx(0.05)
    assert report.complex_radius == pytest.approx(0.05, rel=1e-8)
    assert report.raw == pytest.approx(0.05)


def test_the_gradient_over_weight_ratio_is_the_largest_of_each_raw_weight():
    model = ContinuousRNN(1, 4, 1, "tanh", "symmetric", "exp", dtype=F64)
    t = torch.linspace(0, 2, 11, dtype=F64)
    model(torch.randn(2, 11, 1, dtype=F64), t, solver=TorchDiffEq("rk4", adjoint=False, check=False)).square().mean().backward()
    ratios = gradient_over_weight(model)
    w = model.layer_weights[0].recurrence.w
    assert set(ratios) == {"layers.0.recurrence.w", "layers.0.recurrence.A"}
    assert ratios["layers.0.recurrence.w"] == (w.grad / w.detach()).abs().max()


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"\(\.\.\., m, m\)"):
        complex_stability_radius(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="NaN"):
        complex_stability_radius(torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="one matrix"):
        complex_stability_radius(torch.zeros(4, 2, 2))
    with pytest.raises(ValueError, match="'dense'"):
        raw_radius(ContinuousRNN(1, 4, 1, dtype=F64))
    with pytest.raises(ValueError, match="ensemble"):
        stability_report(ContinuousRNN(1, 4, 1, ensemble=(2,), dtype=F64))
    with pytest.raises(ValueError, match="backward"):
        gradient_over_weight(ContinuousRNN(1, 4, 1, dtype=F64))


def test_a_complex_matrix_loses_no_imaginary_part():
    W = torch.diag(torch.tensor([-1 + 1j, -2.0], dtype=torch.complex128))
    assert spectral_abscissa(W).item() == -1
    with pytest.raises(ValueError, match="W is a torch"):
        complex_stability_radius(W)


@pytest.mark.parametrize(
    "W", [None, "a", torch.zeros(0, 0), torch.full((2, 2), torch.nan), torch.zeros(2, 3), [[1.0], [1.0, 2.0]]]
)
def test_what_is_no_matrix_is_named(W):
    with pytest.raises(ValueError, match="W "):
        complex_stability_radius(W)
