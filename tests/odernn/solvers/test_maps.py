"""Compiled states of discrete models against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, central_difference, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative
from torch.autograd import forward_ad

from odernn import DiscreteRNN, DiscreteSSM, DivergedSolve
from odernn.activations import ACTIVATIONS, Activation
from odernn.paths import Path
from odernn.solvers import maps

MODELS = (DiscreteRNN, DiscreteSSM)


@pytest.fixture
def calls(monkeypatch):
    """The fields of compiled solves."""
    seen = []
    compiled = maps.compiled_states

    def noted(steps, field, *arguments):
        seen.append(field)
        return compiled(steps, field, *arguments)

    monkeypatch.setattr(maps, "compiled_states", noted)
    return seen


def both(model, x, t, h0, loss_weights=None):
    """States and gradients, compiled and by the loop."""
    found = []
    for model.backend in ("auto", "torch"):
        inputs = x.clone().requires_grad_(), h0.clone().requires_grad_()
        h = model.respond(inputs[0], t, inputs[1]).solution.h
        loss = (h * loss_weights).sum() if loss_weights is not None else h.square().sum()
        weights = [weight for name, weight in model.named_parameters() if name != "c"]
        found.append((h.detach(), torch.autograd.grad(loss, [*weights, *inputs])))
    return found


def stacked(model, *, batch=5, times=7, x_axes=()):
    x, t, _, _, _ = problem(model, batch=batch, times=times, x_axes=x_axes)
    size = model.num_layers * model.hidden_size
    generator = torch.Generator().manual_seed(2)
    return x, t, torch.randn(*model.ensemble, batch, size, generator=generator, dtype=F64)


def small(cls, size, recurrence, activation="tanh", **options):
    parameterization = recurrence[1]
    if cls is DiscreteSSM and parameterization in ("softplus", "inverse"):
        parameterization = "exp"
    return cls(2, size, 1, activation, recurrence[0], parameterization, seed=0, dtype=F64, **options)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
@pytest.mark.parametrize("cls", MODELS)
def test_states_and_gradients_are_those_of_the_loop(cls, recurrence, layers, calls):
    for activation in ACTIVATIONS:
        model = perturb_bias(small(cls, 6, recurrence, activation, num_layers=layers))
        assert_close(*both(model, *stacked(model)))
    assert len(calls) == len(ACTIVATIONS)


@pytest.mark.parametrize("recurrence", [("dense", "direct"), ("diagonal", "exp"), ("complex", "exp")], ids=lambda pair: pair[0])
@pytest.mark.parametrize("cls", MODELS)
def test_many_tiles_and_threads_in_an_ensemble(cls, recurrence, calls):
    torch.set_num_threads(2)
    model = perturb_bias(small(cls, 18, recurrence, ensemble=(2, 3), num_layers=2))
    for x_axes in ((), (3,), (2, 3)):
        assert_close(*both(model, *stacked(model, batch=61, times=4, x_axes=x_axes)))
    assert len(calls) == 3


@settings(deadline=None, max_examples=30)
@given(
    cls=st.sampled_from(MODELS),
    recurrence=st.sampled_from(RECURRENCES),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    half=st.integers(1, 9),
    batch=st.integers(1, 20),
    times=st.integers(2, 6),
    layers=st.integers(1, 3),
    bias=st.booleans(),
)
def test_any_sizes(cls, recurrence, activation, half, batch, times, layers, bias):
    model = small(cls, 2 * half, recurrence, activation, num_layers=layers, bias=bias)
    assert_close(*both(model, *stacked(model, batch=batch, times=times)))


@pytest.mark.parametrize("cls", MODELS)
def test_gradients_agree_with_central_differences(cls):
    model = perturb_bias(small(cls, 4, ("symmetric", "exp"), num_layers=2))
    x, t, h0 = stacked(model)

    def loss():
        return model(x, t, h0).square().sum()

    weights = list(model.parameters())
    for weight, gradient in zip(weights, torch.autograd.grad(loss(), weights)):
        assert relative(gradient, central_difference(loss, weight)) < 1e-7


@pytest.mark.parametrize("cls", MODELS)
def test_single_precision_is_double_precision_rounded(cls, calls):
    model = perturb_bias(small(cls, 18, ("symmetric", "exp"), num_layers=2))
    expected = both(model, *stacked(model))[1]
    found = both(model.float(), *(tensor.float() for tensor in stacked(model)))[0]
    assert_close(found, expected, states=3e-6, gradients=3e-5)
    assert len(calls) == 2


@pytest.mark.parametrize("cls", MODELS)
def test_x_of_a_step_acts_on_the_next_state_and_the_last_on_none(cls):
    model = small(cls, 4, ("dense", "direct"), num_layers=2)
    x, t, h0 = stacked(model)
    h = model.respond(x, t, h0).solution.h
    for k in range(t.numel()):
        moved = x.clone()
        moved[:, k] += 1
        changed = (model.respond(moved, t, h0).solution.h != h).any(0).any(-1)
        assert torch.equal(changed.nonzero().flatten(), torch.arange(k + 1, t.numel()))
        # and one step later on the layer above
        above = (model.respond(moved, t, h0).solution.h != h)[..., 4:].any(0).any(-1)
        assert torch.equal(above.nonzero().flatten(), torch.arange(t.numel())[k + 2 :])


@pytest.mark.parametrize("cls", MODELS)
def test_an_empty_batch_has_gradients_of_zero(cls):
    model = small(cls, 4, ("dense", "direct"))
    h = model.respond(torch.zeros(0, 5, 2, dtype=F64), torch.arange(5.0)).solution.h
    assert h.shape == (0, 5, 4)
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(h.sum(), model.layer_weights[0].U))


class Leaky(DiscreteRNN):
    def state_equation(self, h, value, step):
        return (1 - step) * h + step * value


class EulerSSM(DiscreteRNN):
    form = "ssm"


class Elman(DiscreteSSM):
    form = "rnn"


@pytest.mark.parametrize(("cls", "compiles"), [(Leaky, False), (EulerSSM, True), (Elman, False)])
def test_other_models_are_compiled_only_where_the_equation_is_the_same(cls, compiles, calls):
    model = perturb_bias(cls(2, 4, 1, "tanh", "diagonal", "exp", num_layers=2, seed=0, dtype=F64))
    x, t, h0 = stacked(model)
    assert_close(*both(model, x, t, h0))
    assert len(calls) == compiles
    h = model.respond(x, t, h0).solution.h
    field = model.field()
    for k, step in enumerate(t.diff()):
        expected = model.state_equation(h[:, k], field(h[:, k], x[:, k]), step)
        assert relative(h[:, k + 1], expected) < 1e-14


def test_an_equation_set_on_one_model_is_followed(calls):
    model = small(DiscreteSSM, 4, ("dense", "direct"))
    model.state_equation = lambda h, value, step: torch.zeros_like(h)
    x, t, h0 = stacked(model)
    assert (model.respond(x, t, h0).solution.h[:, 1:] == 0).all()
    assert not calls


@pytest.mark.parametrize(("cls", "compiles"), [(DiscreteRNN, False), (DiscreteSSM, True)])
def test_an_activation_without_a_kernel(cls, compiles, calls):
    softsign = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True, bound=1.0)
    model = perturb_bias(small(cls, 4, ("dense", "direct"), softsign, num_layers=2))
    assert_close(*both(model, *stacked(model)))
    assert len(calls) == compiles


def test_times_have_their_gradient():
    model = perturb_bias(small(DiscreteRNN, 4, ("dense", "direct")))
    x, t, h0 = stacked(model)
    t.requires_grad_()
    gradient = torch.autograd.grad(model(x, t, h0).square().sum(), t)[0]
    t.requires_grad_(False)
    assert relative(gradient, central_difference(lambda: model(x, t, h0).square().sum(), t)) < 1e-7


@pytest.mark.parametrize("cls", MODELS)
def test_second_derivatives_are_refused_and_the_loop_has_them(cls):
    model = perturb_bias(small(cls, 4, ("dense", "direct")))
    x, t, h0 = stacked(model)
    x.requires_grad_()

    @torch.enable_grad()
    def penalty():
        (gradient,) = torch.autograd.grad(model(x, t, h0).sin().sum(), x, create_graph=True)
        return gradient.square().sum()

    with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*backend = 'torch'"):
        penalty().backward()
    model.backend = "torch"
    U = model.layer_weights[0].U
    (gradient,) = torch.autograd.grad(penalty(), U)
    assert relative(gradient, central_difference(penalty, U)) < 1e-6


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of PyTorch's own forward mode
@pytest.mark.parametrize("cls", MODELS)
def test_transforms_of_functions_and_forward_mode_work(cls):
    model = perturb_bias(small(cls, 4, ("dense", "direct"), num_layers=2))
    x, t, h0 = stacked(model)

    def loss(x):
        return model._states(model.field(), Path(t, "linear", x), t, h0, None).h.square().sum()

    inputs = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(inputs), inputs)
    assert relative(torch.func.grad(loss)(x), expected) < 1e-12
    many = torch.func.vmap(loss)(torch.stack([x, 2 * x]))
    assert relative(many, torch.stack([loss(x), loss(2 * x)])) < 1e-12
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    assert relative(tangent, expected.sum()) < 1e-12


@pytest.mark.parametrize("cls", MODELS)
def test_only_the_gradients_asked_for_are_computed(cls):
    model = perturb_bias(small(cls, 4, ("dense", "direct"), num_layers=2))
    x, t, h0 = stacked(model)
    U = model.layer_weights[1].U
    (expected,) = torch.autograd.grad(model(x, t, h0).square().sum(), U)
    for weight in model.parameters():
        weight.requires_grad_(weight is U)
    (found,) = torch.autograd.grad(model(x, t, h0).square().sum(), U)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("cls", MODELS)
def test_what_diverges_says_so(cls):
    model = small(cls, 2, ("dense", "direct"), "relu")
    model.set_matrix(1e30 * torch.eye(2, dtype=F64))
    x, t = torch.ones(1, 40, 2, dtype=F64), torch.arange(40.0, dtype=F64)
    with pytest.raises(DivergedSolve):
        model(x, t, torch.ones(2, dtype=F64))
    with torch.no_grad():
        h = [model.respond(x, t, torch.ones(2, dtype=F64), check=False).solution.h for model.backend in ("auto", "torch")]
    assert np.array_equal(h[0].isfinite(), h[1].isfinite())


def test_an_unknown_backend_is_refused():
    model = small(DiscreteRNN, 2, ("dense", "direct"))
    model.backend = "numba"
    with pytest.raises(ValueError, match="backend"):
        model(torch.zeros(1, 3, 2, dtype=F64), torch.arange(3.0))
