from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from analysis import OrnsteinUhlenbeck, WhiteNoise, expected_sensitivity, measured_sensitivity
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, InaccurateSolve, LeakyRNN, StateSpaceModel, TorchDiffEq
from targets import inputs

T = torch.linspace(0, 2, 9, dtype=torch.float64)
X = inputs.white_noise(T, 3, channels=2, seed=0)
STEPS = TorchDiffEq("rk4", adjoint=False, step_size=0.0625, check=False)


class Net(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.cell = nn.LSTM(2, 3, batch_first=batch_first, dtype=torch.float64)
        self.head = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x):
        return self.head(self.cell(x)[0])


def by_differences(system, run, step=1e-5):
    """E |dy_t/dtheta|^2 by central differences, weight by weight."""
    found = {}
    with torch.no_grad():
        for name, weight in system.named_parameters():
            found[name] = torch.empty(len(T), *weight.shape, dtype=torch.float64)
            flat, into = weight.view(-1), found[name].view(len(T), -1)
            for k in range(flat.numel()):
                here = flat[k].item()
                ends = []
                for moved in (here + step, here - step):
                    flat[k] = moved
                    ends.append(run(system))
                flat[k] = here
                into[:, k] = ((ends[0] - ends[1]) / (2 * step)).square().sum(-1).mean(0)
    return found


KINDS = {
    "tanh": lambda: ContinuousRNN(2, 2, 2, "tanh", "symmetric", "softplus", seed=0, dtype=torch.float64),
    "stack": lambda: StateSpaceModel(2, 2, 1, "tanh", "complex", "lru", num_layers=2, seed=0, dtype=torch.float64),
    "leaky": lambda: LeakyRNN(2, 2, 1, "tanh", seed=0, dtype=torch.float64),
    "linear": lambda: StateSpaceModel(2, 2, 1, "linear", "dense", seed=0, dtype=torch.float64),
    "euler": lambda: DiscreteRNN(2, 2, 1, "relu", "dense", seed=0, dtype=torch.float64),
    "map": lambda: DiscreteSSM(2, 2, 1, "tanh", "lru", "inverse", seed=0, dtype=torch.float64),
}


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("of", ["output", "state"])
def test_sensitivities_of_every_kind_of_model_are_those_of_differences(name, of):
    model = KINDS[name]()
    solver = STEPS if name in ("tanh", "stack", "leaky") else None
    found = measured_sensitivity(model, X, T, of=of, solver=solver)

    def run(model):
        response = model.respond(X, T, solver=solver)
        return response.y if of == "output" else response.solution.h

    for weight, expected in by_differences(model, run).items():
        torch.testing.assert_close(found.values[weight], expected, rtol=1e-6, atol=1e-9)


def test_the_default_steps_of_a_nonlinear_model_are_fine_enough_or_say_so():
    model = KINDS["tanh"]()
    fine = TorchDiffEq("rk4", adjoint=False, step_size=0.01)
    found, expected = (measured_sensitivity(model, X, T, solver=solver) for solver in (None, fine))
    for name, value in expected.values.items():
        torch.testing.assert_close(found.values[name], value, rtol=1e-3, atol=1e-6)
    with pytest.warns(InaccurateSolve, match="smaller steps"):
        measured_sensitivity(model, 20 * X, 4 * T)


@pytest.mark.parametrize("batch_first", [True, False])
def test_sensitivities_of_torch_modules_are_those_of_differences(batch_first):
    torch.manual_seed(0)
    net = Net() if batch_first else nn.GRU(2, 2, dtype=torch.float64)

    def run(net):
        return net(X) if batch_first else net(X.transpose(0, 1))[0].transpose(0, 1)

    found = measured_sensitivity(net, X)
    assert found.times.tolist() == list(range(len(T)))
    for weight, expected in by_differences(net, run).items():
        torch.testing.assert_close(found.values[weight], expected, rtol=1e-6, atol=1e-9)


def test_chosen_weights_have_the_values_that_they_have_among_all():
    model = KINDS["map"]()
    one, many = (measured_sensitivity(model, X, T, weights=weights) for weights in (["c"], None))
    assert list(one.values) == ["c"]
    torch.testing.assert_close(one.values["c"], many.values["c"])
    assert list(many.values) == [name for name, _ in model.named_parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize(("recurrence", "parameterization"), [("diagonal", "inverse"), ("lru", "exp"), ("dense", "direct")])
def test_simulations_come_to_the_exact_values(recurrence, parameterization, coloured):
    model = StateSpaceModel(1, 2, 1, "linear", recurrence, parameterization, bias=False, seed=1, dtype=torch.float64)
    step, noise = 0.05, OrnsteinUhlenbeck(2.0) if coloured else WhiteNoise()
    t = step * torch.arange(1601, dtype=torch.float64)
    if coloured:
        x = inputs.ornstein_uhlenbeck(t, 200, timescale=2.0, seed=0)
    else:
        x = inputs.white_noise(t, 200, seed=0) / math.sqrt(step)
    found = measured_sensitivity(model, x, t, of="state", interpolation="linear" if coloured else "hold")
    exact, measured, error = expected_sensitivity(model, noise), found.stationary(), found.stderr()
    for name, value in exact.items():
        # of held or interpolated samples: the step times the fastest rate, 0.1 at most
        assert ((measured[name] - value).abs() <= 4 * error[name] + 0.02 * value).all(), name


def slow_modes(rate, parameterization="exp"):
    model = StateSpaceModel(1, 2, 1, "linear", "diagonal", parameterization, bias=False, seed=0, dtype=torch.float64)
    model.set_matrix(-torch.diag(torch.tensor([rate, 1.0], dtype=torch.float64)))
    return model


def test_a_horizon_that_is_too_short_for_the_memory_gives_no_stationary_value():
    t = torch.arange(0, 30, 0.5, dtype=torch.float64)
    x = inputs.white_noise(t, 400, seed=0)
    weights = ["layers.0.recurrence.w"]
    assert measured_sensitivity(slow_modes(0.4), x, t, weights=weights).stationary()
    with pytest.raises(ValueError, match=r"not settled by t = 29.5.* needs T >= 841"):
        measured_sensitivity(slow_modes(0.01), x, t, weights=weights).stationary()
    unstable = slow_modes(-0.01, "direct")
    with pytest.raises(ValueError, match="unstable"):
        measured_sensitivity(unstable, x, t, weights=weights).stationary()


def test_growth_is_seen_where_no_spectrum_is_known_and_few_sequences_do_not_tell():
    class Sum(nn.Module):
        """The memory that never ends."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            return (self.weight * x).cumsum(1)

    x = inputs.white_noise(torch.arange(64.0, dtype=torch.float64), 400, seed=0)
    with pytest.raises(ValueError, match="has not settled"):
        measured_sensitivity(Sum(), x).stationary()
    with pytest.raises(ValueError, match="scatters"):
        measured_sensitivity(slow_modes(1.0), x[:3], torch.arange(64.0)).stationary()
    with pytest.raises(ValueError, match="one sequence"):
        measured_sensitivity(slow_modes(1.0), x[:1], torch.arange(64.0)).stationary()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measured_sensitivity(KINDS["map"](), X[0], T), "x has shape"),
        (lambda: measured_sensitivity(KINDS["map"](), X[:, :3], T[:3]), "at least 4 times"),
        (lambda: measured_sensitivity(KINDS["map"](), X, T[:-1]), r"t has shape \(8,\)"),
        (lambda: measured_sensitivity(KINDS["map"](), X, T, weights=["W"]), "some of c, layers.0.U"),
        (lambda: measured_sensitivity(KINDS["map"](), X, T, weights="c"), "expected a list"),
        (lambda: measured_sensitivity(KINDS["map"](), X, T, of="loss"), "unknown of"),
        (lambda: measured_sensitivity(Net(), X, of="state"), "shows no state"),
        (lambda: measured_sensitivity(torch.tanh, X), "system is"),
        (lambda: measured_sensitivity(nn.Tanh(), X), "no weights"),
        (lambda: measured_sensitivity(nn.Sequential(nn.Linear(2, 1).double(), nn.Flatten()), X), r"gave a tensor \(3, 9\)"),
        (lambda: measured_sensitivity(DiscreteSSM(2, 2, 1, ensemble=(2,), dtype=torch.float64), X, T), "ensemble"),
        (lambda: measured_sensitivity(KINDS["tanh"](), X, T, solver="dopri5"), "forward mode"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
