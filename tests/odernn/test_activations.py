"""Activations keep to what they declare, and one of the user's own takes every path."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from problems import F64, perturb_bias

from analysis import memory_function, perturbation_error, stability_report
from odernn import (
    Activation,
    ContinuousRNN,
    Data,
    DiscreteRNN,
    DiscreteSSM,
    Exact,
    Fused,
    StateSpaceModel,
    TorchDiffEq,
    Trainer,
    TrainingConfig,
    linear,
    member,
    readouts,
    replicate,
    stack,
)
from odernn.activations import ACTIVATIONS, get
from odernn.models import ContinuousModel
from odernn.solvers import automatic, choose_solver
from targets import ConvolutionalFunctional, kernels

SOFTSIGN = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True, bound=1.0)
# tanh under another name, of which no kernel knows and no derivative is given.
OWN_TANH = Activation("own tanh", torch.tanh, rests_at_zero=True, bound=1.0)
EVERY = (*ACTIVATIONS.values(), SOFTSIGN, OWN_TANH)
# Unchecked: answers are compared at the same steps.
STEPS = TorchDiffEq("rk4", adjoint=False, check=False)
MODELS = (ContinuousRNN, StateSpaceModel, DiscreteRNN, DiscreteSSM)


def model_of(cls, activation, **settings):
    return perturb_bias(cls(1, 4, 1, activation, "diagonal", "softplus", seed=0, dtype=F64, **settings))


def problem(batch=3, points=9):
    t = torch.linspace(0, 2, points, dtype=F64)
    return t, torch.randn(batch, points, 1, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("activation", EVERY, ids=lambda activation: activation.name)
def test_the_derivative_is_that_of_the_function_and_differentiable_itself(activation):
    z = torch.linspace(-3.1, 3.3, 40, dtype=F64, requires_grad=True)
    value, slope = activation.value_and_derivative(z)
    (expected,) = torch.autograd.grad(activation(z).sum(), z, create_graph=True)
    torch.testing.assert_close(value, activation(z))
    torch.testing.assert_close(slope, expected)
    assert float(slope.detach().abs().max()) <= 1
    if activation in (SOFTSIGN, OWN_TANH, ACTIVATIONS["tanh"], ACTIVATIONS["sigmoid"]):
        second, expected = (torch.autograd.grad(part.sum(), z, retain_graph=True)[0] for part in (slope, expected))
        torch.testing.assert_close(second, expected)


@pytest.mark.parametrize("activation", EVERY, ids=lambda activation: activation.name)
def test_what_an_activation_declares_holds(activation):
    z = torch.arange(-1000, 1001, dtype=F64) / 20
    value = activation(z)
    assert activation.linear == bool((value == z).all())
    assert float(value.abs().max()) <= activation.bound
    if activation.bound < torch.inf:
        assert float(value.abs().max()) > 0.9 * activation.bound
    assert activation.rests_at_zero == bool(((value == 0) == (z == 0)).all())


def test_a_name_gives_its_activation_and_cannot_be_taken_by_another():
    assert get("tanh") is get(get("tanh"))
    assert get(SOFTSIGN) is SOFTSIGN
    with pytest.raises(ValueError, match="expected one of linear, hardtanh, tanh, relu, sigmoid"):
        get("softsign")
    with pytest.raises(ValueError, match="another activation of the name 'tanh'"):
        ContinuousRNN(1, 2, 1, Activation("tanh", torch.sin, rests_at_zero=False))


def test_an_entry_is_all_that_a_new_activation_takes(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "softsign", SOFTSIGN)
    model = ContinuousRNN(1, 2, 1, "softsign", seed=0, dtype=F64)
    t, x = problem()
    assert torch.equal(model(x, t), ContinuousRNN(1, 2, 1, SOFTSIGN, seed=0, dtype=F64)(x, t))


def test_solvers_whose_kernels_do_not_know_it_say_so_and_are_not_chosen():
    model, (t, x) = model_of(ContinuousRNN, SOFTSIGN), problem()
    assert not Fused().supports(model.field())
    with pytest.raises(ValueError, match=r"one of the activations linear, .*'softsign': choose TorchDiffEq"):
        model(x, t, solver=Fused())
    assert isinstance(automatic(model.field()), TorchDiffEq)
    # sigma'' jumps at 0, which keeps every solver from tighter tolerances
    chosen = choose_solver(model.field(), linear(t, x), t, model.rest_state().expand(3, -1), tolerance=1e-3)
    assert isinstance(chosen, TorchDiffEq)
    space = model_of(StateSpaceModel, SOFTSIGN)  # dh/dt is linear there
    torch.testing.assert_close(space(x, t, solver=Fused("rk4", 16)), space(x, t, solver=Exact()))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cls", MODELS)
def test_gradients_of_a_model_with_an_activation_of_ones_own(cls, layers):
    model, (t, x) = model_of(cls, SOFTSIGN, num_layers=layers), problem()
    names, weights = zip(*((name, weight.detach().clone().requires_grad_()) for name, weight in model.named_parameters()))
    arguments = {"solver": STEPS} if isinstance(model, ContinuousModel) else {}

    def answer(*weights):
        return torch.func.functional_call(model, dict(zip(names, weights)), (x, t), arguments)

    assert torch.autograd.gradcheck(answer, weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", MODELS)
def test_training_memory_and_perturbation_are_those_of_the_same_activation_built_in(cls):
    t, x = problem(batch=6)
    y = ConvolutionalFunctional(kernels.exponential(1.0))(x, t)
    solver = STEPS if issubclass(cls, ContinuousModel) else None
    answers = []
    for activation in (OWN_TANH, "tanh"):
        model = model_of(cls, activation)
        trainer = Trainer(model, Data(t, x, y, x[:2], y[:2]), TrainingConfig("adam", epochs=3, seed=0), solver=solver)
        trainer.run(progress=False)
        M = memory_function(model, torch.arange(5, dtype=F64))
        E = perturbation_error(model, y, x, t, [0.0, 0.1], search="ascent", restarts=1, steps=2, draws=2, solver=solver)
        losses = [row["loss"] for row in trainer.history]
        assert losses[-1] < losses[0]
        answers.append((losses, M.values.numpy(), float(M.floor), E.errors, stability_report(model)))
    for one, other in zip(*(answer[:4] for answer in answers)):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert answers[0][4] == answers[1][4]


def test_a_readout_in_segments_differentiates_it(monkeypatch):
    model, (t, x) = model_of(StateSpaceModel, SOFTSIGN), problem()
    gradients = []
    for large in (readouts._LARGE, 0):
        monkeypatch.setattr(readouts, "_LARGE", large)
        model.zero_grad()
        model(x, t).square().sum().backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_it_is_kept_by_copies_stacks_members_and_pickles():
    model, (t, x) = model_of(ContinuousRNN, SOFTSIGN), problem()
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), member(replicate(model, 2), 1), member(stack([model]), 0))
    for other in copies:
        assert torch.equal(other(x, t), model(x, t))
    with pytest.raises(ValueError, match="differ in activation"):
        stack([model, model_of(ContinuousRNN, Activation("softsign", torch.tanh, rests_at_zero=True))])


def _softplus_like(z):
    return torch.log1p(z.exp())


def test_one_of_ones_own_is_what_its_function_is():
    swish = Activation("swish", torch.nn.functional.silu)
    assert swish.rests_at_zero
    assert not Activation("softplus", _softplus_like).rests_at_zero
    assert not swish.compiled
    # one of ours under another name is compiled
    mine = Activation("mine", torch.tanh)
    assert (mine.compiled, mine.kernel, mine.bound) == (True, "tanh", 1.0)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    given = Activation("given", torch.sin, derivative=torch.cos)
    assert torch.equal(given.slope(z), z.cos())
    assert torch.allclose(swish.slope(z), torch.sigmoid(z) * (1 + z * (1 - torch.sigmoid(z))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Activation("wrong", torch.sin, derivative=torch.sin), "derivative gives .* difference quotient"),
        (lambda: Activation("wrong", torch.tanh, derivative_of_value=lambda k: 1 - k), "derivative_of_value gives"),
        (lambda: Activation("wrong", torch.sin, kernel="tanh"), "not the function of the kernel"),
        (lambda: Activation("wrong", torch.sin, kernel="sinh"), "kernel"),
        (lambda: Activation("wrong", lambda z: torch.softmax(z, -1)), "not elementwise"),
        (lambda: Activation("wrong", torch.log), "expected finite numbers"),
        (lambda: Activation("wrong", lambda z: z.sum()), "elementwise"),
        (lambda: Activation("wrong", 3), "failed on a tensor"),
        (lambda: Activation(3, torch.sin), "name"),
    ],
)
def test_a_wrong_one_is_found_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
