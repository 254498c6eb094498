from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, combinations, perturb_bias

from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel, activations
from odernn.models import build
from odernn.solvers import TorchDiffEq
from odernn.warm_start import place, slope_at_zero, spread_rates, widen

T = torch.linspace(0, 3, 6, dtype=F64)
X = torch.randn(4, 6, 2, dtype=F64)
STRUCTURES = sorted({(recurrence, f) for _, recurrence, f, _ in combinations()})


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_warm_start_keeps_the_answers_of_the_narrow_model(num_layers):
    for cls, recurrence, parameterization, activation in combinations((ContinuousRNN, StateSpaceModel)):
        if activation == "tanh":
            arguments = ("tanh", recurrence, parameterization)
            narrow = perturb_bias(cls(2, 4, 1, *arguments, num_layers=num_layers, dtype=F64))
            wide = cls(2, 8, 1, *arguments, num_layers=num_layers, seed=9, dtype=F64)
            widen(narrow, wide)
            # An adaptive solver would take other steps for the two.
            solver = TorchDiffEq("rk4", adjoint=False, check=False)
            assert torch.allclose(wide(X, T, solver=solver), narrow(X, T, solver=solver), atol=1e-10), arguments


@pytest.mark.slow
@pytest.mark.parametrize(("recurrence", "parameterization"), STRUCTURES)
@settings(max_examples=10, deadline=None)
@given(
    cls=st.sampled_from([ContinuousRNN, StateSpaceModel, DiscreteSSM]),
    half=st.integers(1, 3),
    more=st.integers(0, 3),
    num_layers=st.integers(1, 3),
    ensemble=st.sampled_from([(), (2,)]),
    seed=st.integers(0, 1000),
)
def test_the_first_units_move_as_those_of_the_narrow_model_wherever_the_others_are(
    recurrence, parameterization, cls, half, more, num_layers, ensemble, seed
):
    generator = torch.Generator().manual_seed(seed)
    m, M = 2 * half, 2 * (half + more)
    narrow, wide = (
        cls(2, size, 1, "tanh", recurrence, parameterization, num_layers=num_layers, ensemble=ensemble, seed=generator, dtype=F64)
        for size in (m, M)
    )
    with torch.no_grad():
        for weight in narrow.parameters():  # away from the start, where A and b are 0 and P is orthogonal
            weight += 0.3 * torch.randn(weight.shape, dtype=F64, generator=generator)
    widen(narrow, wide)
    h = torch.randn(*ensemble, 5, num_layers, M, dtype=F64, generator=generator)
    x = torch.randn(*ensemble, 5, 2, dtype=F64, generator=generator)
    few = h[..., :m].flatten(-2)
    ours, theirs = wide.field(), narrow.field()
    moved = ours(h.flatten(-2), x).unflatten(-1, (num_layers, M))[..., :m].flatten(-2)
    torch.testing.assert_close(moved, theirs(few, x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.readout(h.flatten(-2)), theirs.readout(few), rtol=1e-10, atol=1e-10)


def test_a_warm_start_needs_a_narrower_model_of_the_same_kind():
    with pytest.raises(ValueError, match="narrower"):
        widen(ContinuousRNN(1, 8, 1), ContinuousRNN(1, 4, 1))
    with pytest.raises(ValueError, match="activation"):
        widen(ContinuousRNN(1, 4, 1, "tanh"), ContinuousRNN(1, 8, 1, "relu"))


def test_a_run_of_an_earlier_version_widens_into_a_model_of_this_one():
    narrow = ContinuousRNN(1, 2, 1, "tanh", "symmetric", "exp", dtype=F64)
    earlier = build(narrow.config() | {"recurrence": "orthogonal"}, dtype=F64)
    widen(earlier, ContinuousRNN(1, 4, 1, "tanh", "symmetric", "exp", dtype=F64))


def linear_model(recurrence="diagonal"):
    model = ContinuousRNN(2, 4, 1, "linear", recurrence, bias=False, seed=0, dtype=F64)
    model.set_matrix(torch.diag(torch.tensor([-0.3, -0.3, -0.8, -0.8], dtype=F64)))
    return model


@pytest.mark.parametrize(("recurrence", "parameterization"), [pair for pair in STRUCTURES if pair[0] != "lru"])
@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel])
def test_a_linear_model_keeps_its_function_in_the_linear_range_of_an_activation(cls, recurrence, parameterization):
    linear, solver = linear_model(), TorchDiffEq("rk4", adjoint=False, check=False)
    expected = linear(X, T, solver=solver)
    for activation, scale, error in (("hardtanh", 0.01, 1e-10), ("tanh", 0.01, 1e-3), ("linear", 1.0, 1e-10)):
        model = cls(2, 4, 1, activation, recurrence, parameterization, seed=1, dtype=F64)
        place(linear, model, scale)
        assert (model(X, T, solver=solver) - expected).abs().max() < error * expected.abs().max()


def test_activations_of_another_slope_are_placed_by_it():
    def half(z):
        return torch.tanh(0.5 * z)

    activation, solver = activations.Activation("half", half, True), TorchDiffEq("rk4", adjoint=False, check=False)
    assert slope_at_zero(activation) == pytest.approx(0.5)
    for cls in (ContinuousRNN, StateSpaceModel):
        model = cls(2, 4, 1, activation, "diagonal", seed=1, dtype=F64)
        place(linear_model(), model, 0.01)
        torch.testing.assert_close(model(X, T, solver=solver), linear_model()(X, T, solver=solver), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_placed_is_refused_in_one_line():
    for activation in ("relu", "sigmoid"):
        assert slope_at_zero(activations.get(activation)) is None
        with pytest.raises(ValueError, match=f"activation '{activation}' is not linear around 0"):
            place(linear_model(), ContinuousRNN(2, 4, 1, activation))
    with pytest.raises(ValueError, match="recurrence 'lru' has frequencies omega = e\\^theta_log > 0"):
        place(linear_model(), ContinuousRNN(2, 4, 1, "tanh", "lru", dtype=F64))
    with pytest.raises(ValueError, match="models of one size"):
        place(linear_model(), ContinuousRNN(2, 6, 1, "tanh"))
    with pytest.raises(ValueError, match="place takes a linear model without b"):
        place(ContinuousRNN(2, 4, 1, "tanh"), ContinuousRNN(2, 4, 1, "tanh"))


@pytest.mark.parametrize(("recurrence", "parameterization"), STRUCTURES)
def test_spread_rates_reach_from_the_horizon_to_one(recurrence, parameterization):
    model = ContinuousRNN(1, 6, 1, "tanh", recurrence, parameterization, num_layers=2, seed=0, dtype=F64)
    spread_rates(model, 100.0)
    rates = -model.spectrum().detach().real.unflatten(-1, (2, 6))
    for layer in rates.sort(-1).values:
        assert layer[0] == pytest.approx(0.01, rel=0.03)
        assert layer[-1] == pytest.approx(1.0, rel=0.03) or recurrence in ("complex", "lru")
    discrete = DiscreteSSM(1, 6, 1, "tanh", "diagonal", "exp", seed=0, dtype=F64)
    spread_rates(discrete, 100.0, step=0.5)
    assert float(discrete.slowest_rate(0.5).detach()) == pytest.approx(0.01)
