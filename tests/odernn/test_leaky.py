"""The leaky networks against independent solves, in every form, activation, structure and path of code."""

from __future__ import annotations

import pytest
import torch
from problems import F64, central_difference, dop853, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients

from odernn import (
    Adaptive,
    ContinuousRNN,
    Exact,
    Fused,
    LeakyRNN,
    LeakyVoltageRNN,
    StateSpaceModel,
    TorchDiffEq,
    member,
    paths,
    stack,
    widen,
)
from odernn.activations import ACTIVATIONS, Activation
from odernn.models import build
from odernn.warm_start import place

FORMS = (LeakyRNN, LeakyVoltageRNN)
BACKENDS = ("numba", "products", "torch")
RK4 = TorchDiffEq("rk4", adjoint=False, check=False)
TIGHT = TorchDiffEq("dopri5", 1e-11, 1e-13, adjoint=False)
ZERO = torch.zeros(1, 1, dtype=F64)


def as_written(model, h, x):
    """dh/dt of one layer from the equation with W, for h (batch, m) and x (batch, d)."""
    W, (layer,), sigma = model.weight(), model.layer_weights, model.activation
    drive = x @ layer.U.mT + (0 if layer.b is None else layer.b)
    if isinstance(model, LeakyRNN):
        return (sigma(h @ W.mT + drive) - h) / model.tau
    return (sigma(h) @ W.mT + drive - h) / model.tau


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("cls", FORMS)
def test_the_vector_field_is_the_equation(cls, activation):
    for recurrence in RECURRENCES:
        model = perturb_bias(cls(2, 6, 3, activation, *recurrence, tau=0.3, seed=0, dtype=F64))
        h, x = torch.randn(5, 6, dtype=F64), torch.randn(5, 2, dtype=F64)
        if recurrence[1] != "exp" or recurrence[0] != "lru":  # which scales U
            assert relative(model.field()(h, x), as_written(model, h, x)) < 1e-14
        y = model.field().readout(h)
        assert torch.equal(y, (h if cls is LeakyRNN else model.activation(h)) @ model.c.mT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("cls", FORMS)
def test_fixed_steps_are_torchdiffeqs_in_states_and_gradients(cls, activation, backend):
    for layers, recurrence in enumerate(RECURRENCES):
        options = {"num_layers": 1 + layers % 3, "ensemble": (2,) * (layers % 2), "tau": 0.6}
        model = perturb_bias(cls(2, 6, 1, activation, *recurrence, **options, seed=0, dtype=F64))
        arguments = problem(model, interpolation=("linear", "hold", "jumps")[layers % 3])
        expected = states_and_gradients(model, RK4, *arguments)
        assert_close(states_and_gradients(model, Fused(backend=backend, check=False), *arguments), expected)


@pytest.mark.parametrize("cls", FORMS)
def test_kernels_agree_with_tensor_operations_over_many_tiles_and_threads(cls):
    torch.set_num_threads(2)
    for recurrence in (("dense", "direct"), ("diagonal", "exp"), ("complex", "exp")):
        model = perturb_bias(cls(3, 42, 1, "tanh", *recurrence, ensemble=(2,), tau=0.4, dtype=F64))
        arguments = problem(model, batch=61, times=5, interpolation="jumps")
        expected = states_and_gradients(model, Fused("rk4", 3, "torch", check=False), *arguments)
        for backend in ("numba", "products"):
            assert_close(states_and_gradients(model, Fused("rk4", 3, backend, check=False), *arguments), expected)


@pytest.mark.parametrize("size", [1, 3, 8, 17])
@pytest.mark.parametrize("cls", FORMS)
def test_sizes_and_single_precision(cls, size):
    for batch, times, layers, bias in ((1, 2, 1, False), (19, 3, 2, True)):
        model = cls(1, size, 1, "sigmoid", num_layers=layers, bias=bias, tau=0.5, dtype=F64)
        arguments = problem(model, batch=batch, times=times)
        expected = states_and_gradients(model, Fused(backend="torch", check=False), *arguments)
        assert_close(states_and_gradients(model, Fused(check=False), *arguments), expected)
        model, arguments = model.float(), [a.float() if isinstance(a, torch.Tensor) else a for a in arguments]
        assert_close(states_and_gradients(model, Fused(check=False), *arguments), expected, 3e-6, 3e-5)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("cls", FORMS)
def test_adaptive_steps(cls, activation):
    for layers, recurrence in enumerate(RECURRENCES):
        options = {"num_layers": 1 + layers % 2, "ensemble": (2,) * (layers % 2), "tau": 0.6}
        model = perturb_bias(cls(2, 4, 1, activation, *recurrence, **options, seed=0, dtype=F64))
        arguments = problem(model, batch=9, times=4, interpolation=("linear", "jumps")[layers % 2])
        tight = states_and_gradients(model, Adaptive("tsit5", 1e-10, 1e-12), *arguments)
        assert_close(tight, states_and_gradients(model, TIGHT, *arguments), 1e-8, 1e-8)
        # One block of sequences takes the steps of the plain form.
        arguments = problem(model, batch=8, times=4)
        loose = [Adaptive("dopri5", 1e-3, 1e-5, backend, check=False) for backend in ("numba", "torch")]
        assert_close(*(states_and_gradients(model, solver, *arguments) for solver in loose), 1e-10, 1e-8)


@pytest.mark.parametrize("activation", ["relu", "hardtanh"])
@pytest.mark.parametrize("cls", FORMS)
def test_adaptive_steps_across_kinks(cls, activation):
    model = perturb_bias(cls(1, 4, 1, activation, tau=0.5, seed=0, dtype=F64))
    x, t, h0, weights, _ = problem(model, batch=8, times=4)
    arguments = x, 3 * t, h0, weights, "linear"
    # At kinks rounding decides between steps: whole intervals are the same in both.
    whole = [Adaptive("bosh3", 1e6, 1e6, backend, check=False) for backend in ("numba", "torch")]
    assert_close(*(states_and_gradients(model, solver, *arguments) for solver in whole))
    h = model.solve(paths.linear(3 * t, x), 3 * t, h0, solver=Adaptive("bosh3", check=False)).h
    assert relative(h, dop853(model, paths.linear(3 * t, x), 3 * t, h0)) < 1e-5


@pytest.mark.parametrize("cls", FORMS)
def test_gradients_agree_with_central_differences(cls):
    model = perturb_bias(cls(2, 4, 1, "tanh", "symmetric", "softplus", tau=0.7, seed=0, dtype=F64))
    x, t, _, loss_weights, _ = problem(model)

    def loss():  # from the rest state, which depends on the weights, too
        return (model.solve(paths.linear(t, x), t, "rest", solver=Fused("bosh3", 2, check=False)).h * loss_weights).sum()

    weights = [weight for name, weight in model.named_parameters() if name != "c"]
    for weight, gradient in zip(weights, torch.autograd.grad(loss(), weights)):
        assert relative(gradient, central_difference(loss, weight)) < 1e-6


@pytest.mark.parametrize("cls", FORMS)
def test_it_is_scipys_solution(cls):
    for activation in ("tanh", "relu", "sigmoid"):
        model = perturb_bias(cls(1, 5, 1, activation, tau=0.25, seed=1, dtype=F64))
        t, x = torch.tensor([0.0, 0.4, 1.0, 2.5], dtype=F64), torch.randn(3, 4, 1, dtype=F64, generator=torch.manual_seed(0))
        path, h0 = paths.linear(t, x), torch.zeros(3, 5, dtype=F64)
        expected = dop853(model, path, t, h0)
        assert relative(model.solve(path, t, h0, solver=Adaptive("tsit5", 1e-9, 1e-11, check=False)).h, expected) < 1e-5
        assert relative(model.solve(path, t, h0, solver=Fused(substeps=64)).h, expected) < 1e-4


@pytest.mark.parametrize("cls", FORMS)
def test_where_sigma_is_the_identity_it_is_the_linear_network_of_A(cls):
    for recurrence in RECURRENCES:
        options = {"dtype": F64, "seed": 0}
        model = perturb_bias(cls(2, 6, 1, "linear", *recurrence, tau=0.2, **options))
        linear = StateSpaceModel(2, 6, 1, "linear", *recurrence, **options)
        linear.load_state_dict(model.state_dict())
        with torch.no_grad():
            linear.layer_weights[0].U /= 0.2
            linear.layer_weights[0].b /= 0.2
        x, t, *_ = problem(model)
        assert Exact().supports(model.field())
        assert relative(model(x, t), linear(x, t)) < 1e-13
        assert relative(model(x, t), model(x, t, solver=TIGHT)) < 1e-8
        assert torch.equal(model.spectrum(), linear.spectrum())
        assert torch.equal(model.stability_margin(), linear.stability_margin())


@pytest.mark.parametrize("cls", FORMS)
def test_the_default_solver_is_compiled(cls):
    model = perturb_bias(cls(1, 4, 1, "tanh", num_layers=2, seed=0, dtype=F64))
    x, t, *_ = problem(model)
    response = model.respond(x, t)
    assert response.solution.accepted > 0
    assert relative(response.y, model(x, t, solver=TIGHT)) < 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("cls", FORMS)
def test_the_rest_state_is_where_the_flow_from_0_ends(cls, activation):
    kinds = (("dense", "direct"), 1, ()), (("symmetric", "softplus"), 2, (3,)), (("complex", "exp"), 1, (2,))
    for recurrence, layers, ensemble in kinds:
        for bias in (True, False):
            options = {"num_layers": layers, "ensemble": ensemble, "bias": bias, "tau": 0.4, "seed": 2, "dtype": F64}
            model = cls(1, 6, 1, activation, *recurrence, **options)
            model = perturb_bias(model, 1.0) if bias else model
            rest = model.rest_state().detach()
            assert model.field()(rest.unsqueeze(-2), ZERO).abs().max() < 1e-13
            t = torch.tensor([0.0, 150.0], dtype=F64)
            path = paths.hold(t, torch.zeros(1, 2, 1, dtype=F64))
            end = model.solve(path, t, "zero", solver=Adaptive(check=False)).h[..., 0, -1, :]
            assert torch.allclose(rest, end.detach(), atol=1e-5)
            single = model.float().rest_state().double()
            assert torch.allclose(rest, single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", FORMS)
def test_without_bias_odd_networks_rest_at_0(cls):
    for activation in ("tanh", "hardtanh", "relu", "linear"):
        for bias in (True, False):
            assert not cls(1, 4, 1, activation, bias=bias, dtype=F64).rest_state().any()


@pytest.mark.parametrize("cls", FORMS)
def test_gradients_of_the_rest_state(cls):
    for activation in ("tanh", "sigmoid"):
        model = perturb_bias(cls(1, 3, 1, activation, "symmetric", "softplus", num_layers=2, tau=0.4, seed=2, dtype=F64), 0.5)
        weights = [weight for name, weight in model.named_parameters() if name.split(".")[-1] in ("w", "b")]

        def value(model=model):
            return (model.rest_state() * torch.arange(1.0, 7.0, dtype=F64)).sum()

        def slope(model=model, value=value):
            (gradient,) = torch.autograd.grad(value(), model.layer_weights[0].b, create_graph=True)
            return (gradient * torch.arange(1.0, 4.0, dtype=F64)).sum()

        for weight, gradient in zip(weights, torch.autograd.grad(value(), weights)):
            assert relative(gradient, central_difference(value, weight)) < 1e-7
        b = model.layer_weights[0].b
        (second,) = torch.autograd.grad(slope(), b)
        differences = torch.zeros(3, dtype=F64)
        for index in range(3):
            ends = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    b[index] += step
                ends.append(float(slope().detach()))
                with torch.no_grad():
                    b[index] -= step
            differences[index] = (ends[0] - ends[1]) / 2e-5
        assert relative(second, differences) < 1e-6


@pytest.mark.parametrize("cls", FORMS)
def test_no_rest_state_is_nan_and_refused(cls):
    model = cls(1, 2, 1, "relu", dtype=F64)
    model.set_weight(torch.eye(2, dtype=F64))  # an integrator
    with torch.no_grad():
        model.layer_weights[0].b.fill_(1.0)
    assert torch.isnan(model.rest_state()).all()
    x, t = torch.zeros(1, 3, 1, dtype=F64), torch.arange(3, dtype=F64)
    with pytest.raises(ArithmeticError, match="no rest state to start from"):
        model(x, t)
    assert torch.isfinite(model(x, t, "zero")).all()


@pytest.mark.parametrize("cls", FORMS)
def test_the_weight_can_be_read_and_given(cls):
    W = torch.randn(2, 5, 5, dtype=F64)
    model = cls(1, 5, 1, "tanh", tau=0.1, num_layers=2, ensemble=(2,), dtype=F64)
    model.set_weight(W, layer=1)
    assert torch.allclose(model.weight(1), W, atol=1e-14)
    eye = torch.eye(5, dtype=F64)
    assert torch.allclose(model.layer_weights[1].recurrence.W, (W - eye) / 0.1)
    model.set_matrix(-eye)
    assert torch.allclose(model.weight(), 0.9 * eye.expand(2, 5, 5))
    with pytest.raises(ValueError, match="W must be"):
        model.set_weight(torch.eye(4))
    with pytest.raises(ValueError, match="layer"):
        model.weight(2)


@pytest.mark.parametrize("cls", FORMS)
def test_configs_ensembles_and_wider_models_keep_the_time_constant(cls):
    model = cls(1, 3, 1, "relu", tau=0.3, seed=0, dtype=F64)
    rebuilt = build(model.config(), dtype=F64)
    rebuilt.load_state_dict(model.state_dict())
    x, t, *_ = problem(model)
    solver = Fused(substeps=4, check=False)
    expected = model(x, t, solver=solver)
    assert torch.equal(rebuilt(x, t, solver=solver), expected)
    assert torch.equal(member(stack([model, rebuilt]), 1)(x, t, solver=solver), expected)
    wide = cls(1, 5, 1, "relu", tau=0.3, seed=1, dtype=F64)
    widen(model, wide)
    assert torch.allclose(wide(x, t, solver=solver), expected, atol=1e-12)
    other = cls(1, 3, 1, "relu", tau=0.4, dtype=F64)
    for combine in (lambda: stack([model, other]), lambda: widen(other, wide)):
        with pytest.raises(ValueError, match="tau"):
            combine()
    for tau in (0, -1.0, float("nan"), "fast"):
        with pytest.raises(ValueError, match="tau"):
            cls(1, 3, 1, tau=tau)


@pytest.mark.parametrize("cls", FORMS)
def test_a_linear_model_is_placed_in_the_linear_range(cls):
    linear = ContinuousRNN(1, 3, 1, "linear", bias=False, seed=0, dtype=F64)
    half = Activation("half_tanh", lambda z: torch.tanh(z / 2), rests_at_zero=True, bound=1.0)
    x, t, *_ = problem(linear)
    for activation in ("tanh", half):
        model = cls(1, 3, 1, activation, tau=0.3, dtype=F64)
        place(linear, model, scale=1e-4)
        assert relative(model(x, t, solver=TIGHT), linear(x, t)) < 1e-6


@pytest.mark.parametrize("cls", FORMS)
def test_silent_units_decay_at_the_time_constant(cls):
    model = cls(1, 2, 1, "relu", tau=0.5, bias=False, dtype=F64)
    model.set_weight(torch.zeros(2, 2, dtype=F64))
    x, t = torch.zeros(1, 5, 1, dtype=F64), torch.linspace(0, 2, 5, dtype=F64)
    h = model.respond(x, t, torch.ones(1, 2, dtype=F64), solver=Adaptive(rtol=1e-9, atol=1e-12)).solution.h
    assert torch.allclose(h[0, :, 0], torch.exp(-t / 0.5), atol=1e-7)


def test_a_time_constant_for_each_unit_is_refused_in_one_line():
    for tau in (torch.ones(3), [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="one number for all units") as caught:
            LeakyRNN(1, 3, 1, tau=tau)
        assert "\n" not in str(caught.value)
