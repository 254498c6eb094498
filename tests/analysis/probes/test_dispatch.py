"""Kinds of systems are told apart in one place, and a new kind of model is one class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import linear_kernel

from analysis import fixed_points, lyapunov_exponents, memory_capacity, memory_function, perturbation_error
from analysis.probes import PROBES, dynamics, probed, states
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel, TorchDiffEq
from odernn.models import MODELS, DiscreteModel
from targets import ConvolutionalFunctional, NonlinearFunctional, TeacherFunctional, kernels

DOUBLE = torch.float64
T = torch.linspace(0, 20, 81, dtype=DOUBLE)
LINEAR = {
    "rnn": ContinuousRNN(2, 3, 2, "linear", seed=0, dtype=DOUBLE),
    "ssm": StateSpaceModel(2, 4, 1, "linear", "complex", seed=0, dtype=DOUBLE),
    "euler": DiscreteRNN(2, 3, 1, "linear", seed=0, dtype=DOUBLE),
    "map": DiscreteSSM(2, 3, 1, "linear", "diagonal", seed=0, dtype=DOUBLE),
    "convolution": ConvolutionalFunctional(kernels.stack([kernels.exponential(), kernels.sine()])),
    "module": torch.nn.Linear(2, 3, bias=True, dtype=DOUBLE),
    "sum": lambda x: 1 + x.cumsum(1).sum(-1, keepdim=True),
}
NUMBER = st.floats(-10, 10).filter(lambda a: abs(a) > 1e-3)


class LeakyRNN(DiscreteModel):
    """h_{k+1} = (1 - Dt) h_k + Dt sigma(W h_k + U x_k + b): a kind of model that the packages do not know."""

    form = "rnn"
    time = "discrete"
    name = "leaky"

    def state_equation(self, h, value, step):
        return (1 - step) * h + step * value


def test_a_new_kind_of_model_is_one_class(monkeypatch):
    monkeypatch.setitem(MODELS, "leaky", LeakyRNN)
    model = LeakyRNN(1, 3, 1, "linear", "diagonal", "exp", seed=0, dtype=DOUBLE)
    with torch.no_grad():
        model.layer_weights[0].b.fill_(0.3)
    steps = 0.5 * torch.arange(8, dtype=DOUBLE)
    A = torch.diag(0.5 + 0.5 * model.spectrum().real.detach())
    powers = torch.stack([torch.linalg.matrix_power(A, k) for k in range(8)])
    expected = (model.c @ powers @ model.layer_weights[0].effective().U).abs().sum((-1, -2)).detach()
    for probe in PROBES:
        torch.testing.assert_close(memory_function(model, steps, probe=probe).values, expected, rtol=0, atol=1e-9)
    assert memory_capacity(model, 0.5 * torch.arange(60, dtype=DOUBLE)).rank == 3
    found = fixed_points(model, starts=4, dt=0.5)
    torch.testing.assert_close(found.points[0], model.rest_state().detach())
    torch.testing.assert_close(found.spectra[0].real, A.diagonal().sort(descending=True).values)
    exponents = lyapunov_exponents(model, 0.5 * torch.arange(200, dtype=DOUBLE), transient=0.5).exponents
    torch.testing.assert_close(exponents, 2 * found.spectra[0].abs().log(), rtol=0, atol=1e-3)
    x = torch.ones(1, 8, 1, dtype=DOUBLE)
    curve = perturbation_error(model, lambda x, t: 2 * x, x, steps, [0.0, 0.1], draws=2, restarts=1, steps=1)
    assert curve.errors[1] > curve.errors[0] > 0


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", LINEAR)
@settings(max_examples=5, deadline=None)
@given(a=NUMBER, b=NUMBER)
def test_the_responses_of_a_linear_system_are_linear_in_the_input_whatever_the_probe(name, probe, a, b):
    system = probed(LINEAR[name], torch.arange(5, dtype=DOUBLE), input_size=2)
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]], dtype=DOUBLE)
    x[2] = a * x[0] + b * x[1]
    with torch.no_grad():
        values = system.respond(x, probe).values
    torch.testing.assert_close(values[2], a * values[0] + b * values[1], rtol=0, atol=1e-9)


def test_a_teacher_has_the_memory_of_its_module():
    model = ContinuousRNN(1, 4, 1, seed=1, dtype=DOUBLE)
    teacher = TeacherFunctional(model, pass_times=True)
    torch.testing.assert_close(memory_function(teacher, T[:5]).values, memory_function(model, T[:5]).values)
    module = torch.nn.GRU(1, 4, batch_first=True, dtype=DOUBLE)
    steps = torch.arange(10.0, dtype=DOUBLE)
    torch.testing.assert_close(memory_function(TeacherFunctional(module), steps).values, memory_function(module, steps).values)


def test_a_teacher_has_the_states_and_the_state_equation_of_its_model():
    model = ContinuousRNN(1, 4, 1, seed=1, dtype=DOUBLE)
    teacher, x = TeacherFunctional(model, pass_times=True), torch.ones(2, 3, 1, dtype=DOUBLE)
    with torch.no_grad():
        assert torch.equal(states(teacher, 0.5, T).run(x), states(model, 0.5, T).run(x))
    h = torch.ones(2, 4, dtype=DOUBLE)
    assert torch.equal(dynamics(teacher)(h, x[:, 0]), dynamics(model)(h, x[:, 0]))


@pytest.mark.parametrize(
    "system",
    [
        ContinuousRNN(2, 3, 1, seed=0, dtype=DOUBLE),
        DiscreteRNN(2, 3, 1, seed=0, dtype=DOUBLE),
        LINEAR["convolution"],
        NonlinearFunctional(LINEAR["convolution"], "tanh"),
        torch.nn.GRU(2, 3, dtype=DOUBLE),
    ],
    ids=lambda system: type(system).__name__,
)
def test_a_wrong_number_of_channels_is_named(system):
    for analyse in (memory_function, memory_capacity):
        with pytest.raises(ValueError, match=r"input_size is 3, but .* takes 2: leave it out"):
            analyse(system, torch.arange(3, dtype=DOUBLE), input_size=3)


@pytest.mark.parametrize("system", [DiscreteSSM(1, 3, 1, seed=0), torch.nn.GRU(1, 2), ConvolutionalFunctional(kernels.sine())])
def test_a_solver_is_for_continuous_models(system):
    with pytest.raises(ValueError, match="solver is for the continuous models of odernn, got a"):
        memory_function(system, torch.arange(3, dtype=DOUBLE), solver=TorchDiffEq())


def test_the_responses_of_a_linear_model_are_its_kernel():
    kernel = linear_kernel(LINEAR["rnn"], T)
    with torch.no_grad():
        values = probed(LINEAR["rnn"], T).respond(torch.eye(2, dtype=DOUBLE), "impulse").values
    torch.testing.assert_close(values.permute(1, 2, 0), kernel, rtol=0, atol=1e-9)
