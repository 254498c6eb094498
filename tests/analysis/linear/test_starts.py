from __future__ import annotations

import pytest
import torch
from problems import F64

from analysis.linear import starts
from analysis.linear.starts import linear_error, linear_fits, objective, placed
from odernn import ContinuousRNN, Fused, StateSpaceModel
from odernn.losses import relative_l2
from odernn.training import Data
from targets import ConvolutionalFunctional, NonlinearFunctional, inputs, kernels

T = torch.linspace(0, 40, 81, dtype=F64)
SOLVER = Fused(substeps=2, check=False)
POLYNOMIAL = ConvolutionalFunctional(kernels.polynomial(1.1))


def make_data(H) -> Data:
    x, x_validation = (inputs.random_fourier(T, 4, seed=seed, length_scales=(2.0, 20.0)) for seed in (1, 2))
    return Data(T, x, H(x, T), x_validation, H(x_validation, T))


@pytest.mark.parametrize(
    ("recurrence", "parameterization"),
    [("dense", "direct"), ("symmetric", "softplus"), ("free_basis", "inverse"), ("diagonal", "lru")],
)
@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
def test_a_placed_model_is_as_good_as_the_linear_one(recurrence, parameterization, activation):
    data = make_data(POLYNOMIAL)
    model = ContinuousRNN(1, 4, 1, activation, recurrence, parameterization, seed=0, dtype=F64)
    (fit,) = linear_fits(model, POLYNOMIAL, data)
    model, cost = placed(fit, model, data, SOLVER, weight_decay=0.0)
    with torch.no_grad():
        error = float(relative_l2(model(data.x_validation, T, solver=SOLVER), data.y_validation))
    assert error < 1.2 * linear_error(fit, data)
    assert linear_error(fit, data) < 0.01
    assert cost <= objective(fit, data, None, weight_decay=0.0) * 1.2


def test_a_fit_whose_rate_rounds_to_the_end_of_its_range_can_be_placed(monkeypatch):
    fit = ContinuousRNN(1, 2, 1, "linear", "diagonal", "lru", bias=False, seed=0, dtype=F64)  # rates stay below 1
    with torch.no_grad():
        fit.layer_weights[0].recurrence.w[0] = 40.0
    assert fit.spectrum().real.min() == -1
    monkeypatch.setattr(starts, "fit_kernel", lambda *_, **__: fit)
    data = make_data(POLYNOMIAL)
    model = StateSpaceModel(1, 2, 1, "tanh", "diagonal", "lru", seed=0, dtype=F64)
    placed(linear_fits(model, POLYNOMIAL, data)[0], model, data, None, weight_decay=0.0)
    assert -1 < model.spectrum().real.min() < -1 + 1e-5


def test_kernels_that_oscillate_are_fitted_by_pairs_where_the_recurrence_has_them():
    damped = ConvolutionalFunctional(kernels.from_callable(lambda t: torch.cos(torch.as_tensor(t)).numpy() * 0.8**t))
    data, sizes = make_data(damped), {}
    for recurrence in ("dense", "complex", "diagonal"):
        fits = linear_fits(ContinuousRNN(1, 2, 1, "tanh", recurrence, seed=0, dtype=F64), damped, data)
        sizes[recurrence] = linear_error(fits[0], data)
        assert sizes[recurrence] == min(linear_error(fit, data) for fit in fits)
    assert max(sizes["dense"], sizes["complex"]) < 1e-3 < 0.1 < sizes["diagonal"]


def test_there_is_none_without_a_scalar_kernel():
    model, data = StateSpaceModel(1, 4, 1, dtype=F64), make_data(POLYNOMIAL)
    assert linear_fits(model, NonlinearFunctional(POLYNOMIAL, torch.tanh), data) == []
    assert linear_fits(ContinuousRNN(1, 4, 1, num_layers=2, dtype=F64), POLYNOMIAL, data) == []
