"""States in and out of models: chunks, single steps, and solvers by name."""

from __future__ import annotations

import pytest
import torch

import odernn
from odernn import Adaptive, Auto, DiscreteRNN, DiscreteSSM, Exact, Fused, LeakyRNN, TorchDiffEq
from odernn.models import ContinuousRNN, StateSpaceModel
from odernn.solvers import SOLVERS, named

T = torch.linspace(0, 3, 31, dtype=torch.float64)
X = torch.randn(3, 31, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COARSE = pytest.mark.filterwarnings("ignore::odernn.InaccurateSolve")  # one step a sample
KINDS = (ContinuousRNN, StateSpaceModel, LeakyRNN, DiscreteRNN, DiscreteSSM)


def built(kind, **options):
    return kind(2, 4, 1, **{"seed": 0, "dtype": torch.float64, **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_sequence_in_chunks_equals_the_whole(kind, interpolation, layers):
    model = built(kind, num_layers=layers)
    options = {"interpolation": interpolation, "return_state": True}
    if not model.is_map:
        options["solver"] = Fused(check=False)
    y, h = model(X, T, **options)
    assert torch.equal(y, model(X, T, **{**options, "return_state": False}))
    assert h.shape == (3, 4 * layers)
    parts, state = [], None
    for begin, end in ((0, 7), (7, 8), (8, 30)):
        part, state = model(X[:, begin : end + 1], T[begin : end + 1], state, **options)
        parts.append(part if begin == 0 else part[:, 1:])
    torch.testing.assert_close(torch.cat(parts, 1), y, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(state, h, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
def test_single_steps_equal_the_whole(kind, interpolation):
    model = built(kind, ensemble=(2,))
    solver = None if model.is_map else Fused(check=False)
    y = model(X, T, solver=solver, interpolation=interpolation)
    state: object = None
    for k in range(30):
        y_k, state = model.step(state, X[:, k], X[:, k + 1], T[k + 1] - T[k], solver=solver, interpolation=interpolation)
        torch.testing.assert_close(y_k, y[..., k + 1, :], rtol=1e-12, atol=1e-13)


@COARSE
@pytest.mark.parametrize(
    ("solver", "apart"),
    [(Adaptive(), 1e-5), (TorchDiffEq("dopri5"), 1e-5), (TorchDiffEq("rk4", adjoint=False), 1e-13), (None, 1e-5)],
)
def test_chunks_of_other_solvers(solver, apart):
    model = built(ContinuousRNN)
    y, h = model(X[:, :4], T[:4], solver=solver, return_state=True)
    half, state = model(X[:, :3], T[:3], solver=solver, return_state=True)
    rest, state = model(X[:, 2:4], T[2:4], state, solver=solver, return_state=True)
    assert (torch.cat([half, rest[:, 1:]], 1) - y).abs().max() < apart
    assert (state - h).abs().max() < apart


def test_exact_in_chunks_and_gradients_through_the_state():
    model = built(StateSpaceModel)
    y = model(X, T, solver=Exact())
    _, state = model(X[:, :11], T[:11], solver=Exact(), return_state=True)
    rest = model(X[:, 10:], T[10:], state, solver=Exact())
    torch.testing.assert_close(rest, y[:, 10:])
    whole = torch.autograd.grad(y[:, 11:].square().sum(), list(model.parameters()))
    parts = torch.autograd.grad(rest[:, 1:].square().sum(), list(model.parameters()))
    for one, other in zip(whole, parts):
        torch.testing.assert_close(one, other)


def test_bad_steps_are_refused_in_one_line():
    model = built(ContinuousRNN)
    x = X[:, 0]
    for arguments, message in (
        ((None, x, x, 0.0), "dt"),
        ((None, x, x, float("nan")), "dt"),
        ((None, x, x, torch.ones(3)), "dt"),
        ((None, x, x[:2], 0.1), r"x_right is \(2, 2\)"),
        ((None, x[:, :1], x[:, :1], 0.1), "2 channels"),
        ((torch.zeros(3, 5), x, x, 0.1), "h0 must have a shape"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            model.step(*arguments)
        assert "\n" not in str(caught.value)


@COARSE
@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ("exact", "scipy_solver", "implicit_adams")])
def test_a_name_is_the_solver_of_that_name(name):
    model = built(ContinuousRNN)
    with torch.no_grad():
        assert torch.equal(model(X[:, :3], T[:3], solver=name), model(X[:, :3], T[:3], solver=SOLVERS[name]))


def test_auto_is_the_cheapest_solver_that_keeps_to_its_tolerance():
    model = built(ContinuousRNN)
    tight = model(X, T, solver=Adaptive(rtol=1e-10, atol=1e-12, check=False))
    y = model(X, T, solver="auto")
    assert (y - tight).norm() < 1e-5 * tight.norm()
    path = odernn.linear(T, X)
    chosen = Auto().chosen(model.field(), path, T, model.rest_state().expand(3, -1))
    assert isinstance(chosen, Fused)
    assert torch.equal(y, model(X, T, solver=chosen))
    assert model(X[:0], T, solver="auto").shape == (0, 31, 1)
    # Maps have one way.
    assert torch.equal(built(DiscreteRNN)(X, T, solver="auto"), built(DiscreteRNN)(X, T))


@pytest.mark.parametrize("solver", ["rk5", 4, torch.nn.ReLU()])
def test_no_solver_is_one_line_with_the_names(solver):
    for call in (lambda: built(ContinuousRNN)(X, T, solver=solver), lambda: named(solver)):
        with pytest.raises(ValueError, match=r"expected a Solver such as .* auto, exact, fused") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_help_of_every_model_shows_its_arguments():
    for kind in KINDS:
        assert "hidden_size" in kind.__doc__
        assert kind.__doc__.count("Args:") == 1
