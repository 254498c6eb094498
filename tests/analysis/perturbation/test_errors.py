from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import F64, perturb_bias

from analysis.perturbation import perturbation_error
from odernn import ContinuousRNN, Data, Fused
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 5, 31, dtype=F64)
X = inputs.random_fourier(T, 4, seed=0)
H = ConvolutionalFunctional(kernels.exponential())
OPTIONS = {"betas": [0.0, 0.1], "draws": 2, "steps": 2, "restarts": 0, "solver": Fused(check=False)}
MODEL = perturb_bias(ContinuousRNN(1, 3, 1, dtype=F64, seed=0))


@pytest.mark.parametrize("error", ["mse", "relative_l2", "time_weighted"])
def test_missing_targets_have_no_part_in_the_error(error):
    y, count = H(X, T), 20
    mask = (torch.arange(len(T)) < count).expand(len(X), -1)
    short = perturbation_error(MODEL, y[:, :count], X[:, :count], T[:count], error=error, **OPTIONS)
    there = mask.unsqueeze(-1)
    for target, given in ((torch.where(there, y, math.nan), None), (torch.where(there, y, 1e30), mask), (H, mask)):
        curve = perturbation_error(MODEL, target, X, T, error=error, mask=given, **OPTIONS)
        assert curve.scale == pytest.approx(short.scale, rel=1e-9)
        assert curve.errors == pytest.approx(short.errors, rel=1e-6)


def test_the_largest_error_is_that_of_the_targets_that_are_there():
    mask = torch.rand(4, 31, 1, generator=torch.Generator().manual_seed(0)) < 0.5
    with torch.no_grad():
        distance = (MODEL(X, T, solver=OPTIONS["solver"]) - H(X, T)).abs() / X.abs().amax(1, keepdim=True)
    for target, given in ((torch.where(mask, H(X, T), math.nan), None), (H, mask)):
        curve = perturbation_error(MODEL, target, X, T, error="sup", mask=given, **OPTIONS)
        assert curve.initial == pytest.approx(float(distance[mask].max()), rel=1e-9)
        assert np.isfinite(curve.errors).all()


def test_targets_of_data_are_taken_as_they_are():
    y = H(X, T)
    y[0, 3:] = math.nan
    data = Data(T, X, y, X, y)
    one = perturbation_error(MODEL, data.y, data.x, data.t, **OPTIONS)
    other = perturbation_error(MODEL, H, X, T, mask=data.mask, **OPTIONS)
    assert one.errors == pytest.approx(other.errors, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.ones(3, 31, dtype=torch.bool)}, "mask is torch.bool"),
        ({"mask": torch.zeros(4, 31, dtype=torch.bool)}, "nothing is there"),
        ({"target": lambda x, t: H(x, t) * torch.nan}, "target holds NaN"),
        ({"error": "kernel_l1", "mask": torch.ones(4, 31, dtype=torch.bool)}, "mask is for errors measured on inputs"),
    ],
)
def test_masks_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        perturbation_error(**{"model": MODEL, "target": H, "x": X, "t": T, **OPTIONS, **change})


def test_times_may_be_those_of_each_sequence():
    mask = torch.rand(4, 31, generator=torch.Generator().manual_seed(0)) < 0.5
    y = H(X, T)
    shared = perturbation_error(MODEL, y, X, T, mask=mask, **OPTIONS)
    own = perturbation_error(MODEL, y, X, T.expand(4, -1), mask=mask, **OPTIONS)
    assert own.errors == pytest.approx(shared.errors, rel=1e-9)
    assert own.horizon == shared.horizon
    t = T * torch.tensor([[0.5], [1.0], [0.8], [0.7]])
    found = perturbation_error(MODEL, y, X, t, [0.0], error="relative_l2")
    each = torch.cat([MODEL(X[i : i + 1], t[i]) for i in range(4)])
    expected = torch.linalg.vector_norm(each - y) / torch.linalg.vector_norm(y)
    assert found.initial == pytest.approx(float(expected.detach()), rel=1e-4)
