from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis import fit_kernel, linear_curves, perturbation_error
from analysis.linear.curves import fitted_curves
from targets import kernels


@pytest.mark.parametrize("block", ["recurrent", "all"])
def test_a_longer_search_finds_little_more(block):
    kernel, betas = kernels.polynomial(1.1), np.geomspace(1e-4, 4.0, 8)
    short, long = (
        fitted_curves(kernel, "direct", (4,), 1000.0, betas, (block,), 0, **search)[0].errors
        for search in ({"draws": 10, "restarts": 1}, {"draws": 100, "restarts": 10})
    )
    finite = np.isfinite(long)
    np.testing.assert_allclose(short[finite], long[finite], rtol=0.05)


def test_the_curves_are_those_of_the_fitted_models_at_two_horizons():
    kernel = kernels.exponential()
    curves = linear_curves(kernel, "exp", widths=(1, 2), horizon=20.0)
    assert [(curve.hidden_size, curve.block_choice, curve.horizon) for curve in curves] == [
        (1, "all", 20.0),
        (1, "recurrent", 20.0),
        (2, "all", 20.0),
        (2, "recurrent", 20.0),
        (2, "all", 80.0),
        (2, "recurrent", 80.0),
    ]
    three = linear_curves(kernel, "exp", widths=(1,), horizon=20.0, horizons=3)
    assert sorted({curve.horizon for curve in three}) == [20.0, 80.0, 320.0]
    assert all(curve.target_memory.law == "exponential" for curve in curves)
    assert curves[0].model == fit_kernel(kernel, 1, 20.0, "exp").config()


def test_the_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float32)
    assert linear_curves(kernels.exponential(), "direct", widths=(1, 2))[0].worst_case.c.dtype == torch.float64


@pytest.mark.parametrize(("parameterization", "block"), [("exp", "all"), ("exp", "recurrent"), ("direct", "recurrent")])
def test_the_derivative_in_the_norm_does_not_change_how_radii_scale(parameterization, block):
    kernel, falls = kernels.polynomial(1.1), {}
    for error in ("kernel_l1", "kernel_sobolev"):
        radii = []
        for horizon in (250.0, 1000.0):
            model = fit_kernel(kernel, 8, horizon, parameterization)
            search = {"error": error, "horizon": horizon, "blocks": block, "draws": 4, "restarts": 1}
            curve = perturbation_error(model, kernel, None, None, np.geomspace(1e-3, 1, 16), **search)
            assert curve.radius_bound() == ""
            radii.append(curve.tolerance_radius())
        falls[error] = np.log(radii[0] / radii[1]) / np.log(4)
    assert falls["kernel_sobolev"] == pytest.approx(falls["kernel_l1"], abs=0.05)
