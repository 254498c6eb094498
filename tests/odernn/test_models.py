from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from problems import F64, central_difference, combinations, perturb_bias

from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, DivergedSolve, Exact, Fused, StateSpaceModel, TorchDiffEq
from odernn.activations import ACTIVATIONS
from odernn.ensembles import member, replicate
from odernn.models import MODELS, build
from odernn.parameterizations import Inverse
from odernn.recurrences import RECURRENCES
from targets import ConvolutionalFunctional, kernels

T = torch.tensor([0.0, 0.1, 0.3, 0.35, 0.6, 1.0], dtype=F64)  # uneven
X = torch.randn(4, 6, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
CONTINUOUS = (ContinuousRNN, StateSpaceModel)


def test_every_combination_answers_with_the_documented_shape():
    for cls, recurrence, parameterization, activation in combinations((*CONTINUOUS, DiscreteRNN, DiscreteSSM)):
        for ensemble, num_layers in (((), 1), ((3,), 2)):
            model = cls(2, 4, 3, activation, recurrence, parameterization, num_layers=num_layers, ensemble=ensemble, dtype=F64)
            solver = {"solver": TorchDiffEq("rk4", check=False)} if cls in CONTINUOUS else {}
            assert model(X, T, **solver).shape == (*ensemble, 4, 6, 3)
            assert model.spectrum().shape == (*ensemble, 4 * num_layers)


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cls", [*CONTINUOUS, DiscreteRNN, DiscreteSSM])
def test_a_model_at_rest_answers_zero_input_with_a_constant(cls, num_layers):
    for _, recurrence, parameterization, activation in combinations((cls,)):
        if activation in ("relu", "sigmoid") and cls.form == "rnn":
            continue  # no unique rest state: see the next test
        model = cls(2, 4, 1, activation, recurrence, parameterization, num_layers=num_layers, dtype=F64)
        y = perturb_bias(model)(torch.zeros_like(X), T)
        # dopri5 at its default tolerance of 1e-6 keeps an equilibrium to about that
        assert (y - y[..., :1, :]).abs().max() < 1e-5
        assert (model(torch.zeros_like(X), T, "zero") - y).abs().max() > 1e-3


def test_an_rnn_without_a_unique_rest_state_starts_from_zero():
    for activation in ("relu", "sigmoid"):
        model = perturb_bias(ContinuousRNN(2, 4, 1, activation, "diagonal", "exp", dtype=F64))
        assert torch.equal(model.rest_state(), torch.zeros(4, dtype=F64))


@pytest.mark.parametrize("cls", CONTINUOUS)
def test_a_linear_model_is_the_convolution_with_its_kernel(cls):
    model = cls(1, 5, 1, "linear", "dense", bias=False, dtype=F64)
    t = torch.linspace(0, 4, 41, dtype=F64)
    x = torch.randn(3, 41, 1, dtype=F64)
    (layer,) = model.field().layers

    def rho(times):  # c^T e^{Wt} U
        exponentials = torch.linalg.matrix_exp(layer.W.to_dense() * torch.from_numpy(times)[:, None, None])
        return (model.c @ exponentials @ layer.U).detach().numpy()[:, 0, 0]

    y = ConvolutionalFunctional(kernels.from_callable(rho))(x, t)
    assert torch.allclose(model(x, t, solver=Exact()), y, atol=1e-10)
    assert torch.allclose(model(x, t, solver=TorchDiffEq("dopri8", rtol=1e-11, atol=1e-12)), y, atol=1e-9)


def test_discrete_models_follow_their_recursions():
    h0 = torch.randn(4, 3, dtype=F64)
    for cls in (DiscreteRNN, DiscreteSSM):
        model = perturb_bias(cls(2, 3, 1, "tanh", "symmetric", "exp", dtype=F64))
        (layer,) = model.field().layers
        W, states = layer.W.to_dense(), [h0]
        for k in range(T.numel() - 1):
            h = states[-1]
            rate = h @ W.mT + X[:, k] @ layer.U.mT + layer.b
            states.append(h + (T[k + 1] - T[k]) * torch.tanh(rate) if cls is DiscreteRNN else rate)
        h = torch.stack(states, 1)
        expected = (h if cls is DiscreteRNN else torch.tanh(h)) @ model.c.mT
        assert torch.allclose(model(X, T, h0), expected, atol=1e-13)


def test_the_discrete_rnn_is_the_euler_step_of_the_continuous_one():
    continuous = perturb_bias(ContinuousRNN(2, 4, 1, "tanh", "dense", dtype=F64))
    discrete = DiscreteRNN(2, 4, 1, "tanh", "dense", dtype=F64)
    discrete.load_state_dict(continuous.state_dict())
    held = continuous(X, T, solver=TorchDiffEq("euler", check=False), interpolation="hold")
    assert torch.allclose(discrete(X, T), held, atol=1e-13)


@pytest.mark.parametrize("cls", CONTINUOUS)
def test_a_stack_feeds_each_layer_with_the_one_below(cls):
    model = perturb_bias(cls(2, 3, 1, "tanh", "dense", num_layers=2, dtype=F64))
    h, x = torch.randn(4, 6, dtype=F64), torch.randn(4, 2, dtype=F64)
    first, second = model.field().layers
    one = h[:, :3] @ first.W.W.mT + x @ first.U.mT + first.b
    below = h[:, :3] if cls is ContinuousRNN else torch.tanh(h[:, :3])
    two = h[:, 3:] @ second.W.W.mT + below @ second.U.mT + second.b
    expected = torch.cat([one, two], -1)
    assert torch.allclose(model.field()(h, x), torch.tanh(expected) if cls is ContinuousRNN else expected)


@pytest.mark.parametrize("solver", [TorchDiffEq("rk4", check=False), TorchDiffEq("dopri5", 1e-9, 1e-11), Exact()])
def test_an_ensemble_is_its_members_side_by_side(solver):
    cls = StateSpaceModel if isinstance(solver, Exact) else ContinuousRNN
    for recurrence, parameterization in (("dense", "direct"), ("complex", "exp"), ("symmetric", "softplus")):
        together = cls(2, 4, 1, "tanh", recurrence, parameterization, ensemble=(2, 3), dtype=F64)
        perturb_bias(together)
        y = together(X, T, solver=solver)
        for i in range(2):
            for j in range(3):
                alone = build(together.config() | {"ensemble": []}, dtype=F64)
                alone.load_state_dict({name: value[i, j] for name, value in together.state_dict().items()})
                assert torch.allclose(alone(X, T, solver=solver), y[i, j], atol=1e-8)


def test_each_member_may_have_its_own_input():
    model = ContinuousRNN(2, 4, 1, "tanh", ensemble=(3,), dtype=F64)
    x = torch.randn(3, 4, 6, 2, dtype=F64)
    y = model(x, T)
    assert torch.allclose(y[1], model(x[1], T)[1], atol=1e-7)


def test_a_config_rebuilds_the_same_kind_of_model():
    for name, cls in MODELS.items():
        model = cls(2, 4, 3, "hardtanh", "complex", "inverse", num_layers=2, bias=False, dtype=F64)
        again = build(model.config(), dtype=F64)
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(X, T), model(X, T)), name


def test_the_same_seed_means_the_same_model_in_every_precision():
    double, single = (ContinuousRNN(2, 8, 1, seed=5, dtype=dtype) for dtype in (F64, torch.float32))
    for a, b in zip(double.parameters(), single.parameters()):
        assert torch.equal(a.float(), b)
    assert not torch.equal(double.c, ContinuousRNN(2, 8, 1, seed=6, dtype=F64).c)


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_every_parameter_and_buffer_is_described(recurrence):
    for bias in (True, False):
        model = ContinuousRNN(2, 4, 1, "tanh", recurrence, "direct", num_layers=2, bias=bias)
        known = model.raw_weights()
        assert set(known) == set(model.state_dict())
        assert {name for name, weight in known.items() if weight.decays} == {"c", "layers.0.U", "layers.1.U"}
        # The gamma of an LRU scales the input; W is not made of it.
        of_W = {name for name in known if ".recurrence." in name and not name.endswith("gamma_log")}
        assert {name for name, weight in known.items() if weight.recurrent} == of_W


MODEL = ContinuousRNN(2, 4, 1, dtype=F64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ContinuousRNN(2, 0, 1), "hidden_size is 0, expected an integer of at least 1"),
        (lambda: ContinuousRNN(2, 4, 1, "swish"), "expected one of linear"),
        (lambda: MODEL(X, T.flip(0)), "t is not increasing"),
        (lambda: MODEL(X, torch.zeros(6, dtype=F64)), "t is not increasing"),
        (lambda: MODEL(X[:, :5], T), "x must be"),
        (lambda: MODEL(X[..., :1], T), "x must be"),
        (lambda: MODEL(X.float(), T), "convert one"),
        (lambda: MODEL(X.log(), T), "NaN"),
        (lambda: MODEL(X, T, h0=torch.zeros(3, dtype=F64)), "h0 must have a shape"),
        (lambda: MODEL(X[:0], T, h0=torch.zeros(4, 4, dtype=F64)), "as many states as x has sequences in its batch"),
        (lambda: MODEL(X, T, h0="sleep"), "'rest' or 'zero'"),
        (lambda: MODEL(X, T, interpolation="cubic"), "expected one of linear, hold"),
        (lambda: MODEL(X, T, solver=Exact()), "solver 'exact' needs"),
        (lambda: MODEL(X.expand(2, 4, 6, 2), T), "ensemble"),
        (lambda: build({"model": "cnn"}), "expected one of rnn"),
        (lambda: TorchDiffEq("rk5"), "expected one of"),
        (lambda: TorchDiffEq("dopri5", step_size=0.1), "fixed-step"),
        (lambda: TorchDiffEq("rk4", step_size=0.0), "step_size is 0.0, expected a finite number > 0"),
        (lambda: TorchDiffEq("dopri5", rtol=-1.0), "rtol is -1.0, expected a finite number > 0"),
        (lambda: TorchDiffEq("scipy_solver", adjoint=False), "adjoint=True"),
    ],
)
def test_bad_input_is_named_with_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_diverging_solve_says_when_how_large_and_why(method):
    model = ContinuousRNN(2, 4, 1, "relu", "dense", dtype=F64)
    model.set_matrix(200 * torch.eye(4))
    t = torch.linspace(0, 40, 41, dtype=F64)
    with pytest.raises(DivergedSolve, match=r"diverged at t = .*\|h\| = .*spectrum of W = 200.*stable parameterization"):
        model(torch.ones(1, 41, 2, dtype=F64), t, solver=TorchDiffEq(method))


def test_a_singular_matrix_has_no_rest_state_to_start_from():
    model = perturb_bias(ContinuousRNN(2, 4, 1, dtype=F64))
    model.set_matrix(torch.zeros(4, 4))
    with pytest.raises(DivergedSolve, match="no rest state"):
        model(X, T)
    assert torch.isfinite(model(X, T, "zero")).all()


def test_without_a_drive_a_singular_matrix_rests_at_zero():
    model = StateSpaceModel(2, 4, 1, "linear", dtype=F64)
    model.set_matrix(torch.zeros(4, 4))
    integral = torch.cumulative_trapezoid(X, T, dim=1)
    expected = integral @ model.layer_weights[0].U.mT @ model.c.mT
    assert torch.allclose(model(X, T)[:, 1:], expected, atol=1e-12)


def test_the_slowest_rate_is_per_unit_time_and_signed():
    discrete = DiscreteSSM(1, 2, 1, "linear", "diagonal", dtype=F64)
    discrete.set_matrix(torch.diag(torch.tensor([0.9, 0.2])))
    assert discrete.slowest_rate(0.5).item() == pytest.approx(-math.log(0.9) / 0.5)
    continuous = ContinuousRNN(1, 2, 1, recurrence="diagonal", dtype=F64)
    continuous.set_matrix(torch.diag(torch.tensor([0.3, -2.0])))
    assert continuous.slowest_rate().item() == pytest.approx(-0.3)


def test_other_ranges_of_the_inverse_parameterization_construct():
    for cls, time in ((ContinuousRNN, "continuous"), (DiscreteSSM, "discrete")):
        for b in (2.0, 4.0):
            assert cls(1, 8, 1, recurrence="diagonal", parameterization=Inverse(time, 1.0, b)).stability_margin() > 0


SOLVERS_FROM_REST = (
    Fused("rk4", 4),
    TorchDiffEq("rk4", adjoint=False, step_size=0.05, check=False),
    TorchDiffEq("dopri5", 1e-9, 1e-11),
)


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", ["direct", "softplus"])
@pytest.mark.parametrize("recurrence", ["dense", "diagonal", "symmetric", "complex"])
@pytest.mark.parametrize("cls", list(MODELS.values()))
def test_the_gradient_of_b_at_b_0_where_every_model_starts(cls, recurrence, parameterization):
    if recurrence == "dense" and parameterization != "direct":
        return
    model = cls(2, 4, 1, "tanh", recurrence, parameterization, seed=0, dtype=F64)
    b = model.layer_weights[0].b
    solvers = [{"solver": solver} for solver in SOLVERS_FROM_REST] if not cls.is_map else [{}]
    if cls is StateSpaceModel:
        solvers += [{"solver": Exact()}, {"solver": Exact(backend="torch")}]
    for arguments in solvers:

        def loss(arguments=arguments):
            return model(X, T, **arguments).square().sum()

        (found,) = torch.autograd.grad(loss(), b)
        assert torch.allclose(found, central_difference(loss, b.data), rtol=1e-5, atol=1e-7), arguments


def test_a_singular_W_rests_at_0_without_b_and_nowhere_with_it():
    singular = {
        "dense": torch.tensor([[-1.0, 1.0], [1.0, -1.0]]),  # rounding alone could make its smallest pivot 1e-17
        "diagonal": torch.diag(torch.tensor([0.0, -2.0])),
        "complex": torch.zeros(2, 2),
    }
    for recurrence, W in singular.items():
        for cls in (ContinuousRNN, StateSpaceModel, DiscreteRNN):
            model = cls(2, 2, 1, "tanh", recurrence, seed=0, dtype=F64)
            model.set_matrix(W)
            model(X, T).square().sum().backward()
            assert all(torch.isfinite(weight.grad).all() for weight in model.parameters()), (recurrence, cls)
            with torch.no_grad():
                model.layer_weights[0].b.fill_(0.1)
            with pytest.raises(DivergedSolve, match="W is singular and b is not 0: give h0"):
                model(X, T)
            model(X, T, "zero")


def test_one_singular_member_does_not_touch_the_gradients_of_the_others():
    model = ContinuousRNN(2, 3, 1, "tanh", seed=0, ensemble=(2,), dtype=F64)
    alone = ContinuousRNN(2, 3, 1, "tanh", seed=0, dtype=F64)
    with torch.no_grad():
        model.layer_weights[0].recurrence.W[0] = 0
    alone.load_state_dict({name: value[1] for name, value in model.state_dict().items()})
    solver = Fused("rk4", check=False)
    model(X, T, solver=solver).square().sum().backward()
    alone(X, T, solver=solver).square().sum().backward()
    for together, single in zip(model.parameters(), alone.parameters()):
        assert torch.isfinite(together.grad).all()
        assert torch.allclose(together.grad[1], single.grad, rtol=1e-12)


def test_a_mode_that_neither_decays_nor_is_driven_rests_at_0_beside_others():
    model = ContinuousRNN(2, 2, 1, "tanh", "diagonal", seed=0, dtype=F64)
    model.set_matrix(torch.diag(torch.tensor([0.0, -2.0])))
    with torch.no_grad():
        model.layer_weights[0].b.copy_(torch.tensor([0.0, 1.0]))
    assert model.rest_state().tolist() == [0.0, 0.5]


@pytest.mark.parametrize("cls", list(MODELS.values()))
def test_single_precision_models_keep_the_times_of_double_precision(cls):
    model = cls(2, 4, 1, "tanh", "diagonal", seed=0, dtype=torch.float32)
    x = torch.randn(3, 1001, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0, 10, 1001, dtype=F64)
    arguments = {"solver": Fused("rk4", check=False)} if not cls.is_map else {}
    for offset in (1e3, 1e5, 1.7e9):
        # In double precision a step of 0.01 is known to 5e-5 of its length there.
        assert torch.allclose(model(x, t + offset, **arguments), model(x, t, **arguments), atol=1e-4), offset


def test_times_too_coarse_for_their_steps_are_refused():
    model = ContinuousRNN(1, 2, 1, seed=0)
    t = torch.linspace(0, 10, 101)
    x = torch.zeros(1, 101, 1)
    model(x, t + 100)
    with pytest.raises(ValueError, match=r"float32 is known to .* too coarse for steps of 0.1: give t in float64"):
        model(x, (t.double() + 1e5).float())
    half = torch.linspace(0, 10, 11).half()
    with pytest.raises(ValueError, match="too coarse"):
        model(x[:, :11], half + 1000)


def test_times_may_be_integers_or_a_list():
    model = ContinuousRNN(1, 2, 1, seed=0, dtype=F64)
    x = torch.ones(1, 5, 1, dtype=F64)
    for t in (torch.arange(5), [0, 1, 2, 3, 4]):
        assert torch.equal(model(x, t), model(x, torch.arange(5, dtype=F64)))


@pytest.mark.parametrize("cls", list(MODELS.values()))
def test_every_model_takes_one_signature(cls):
    model, h0 = cls(2, 4, 1, "tanh", "diagonal", seed=0, dtype=F64), torch.ones(4, 4, dtype=F64)
    for interpolation in ("linear", "hold"):
        response = model.respond(X, T, h0, solver=None, interpolation=interpolation, check=False)
        assert torch.equal(response.y, model(X, T, h0, solver=None, interpolation=interpolation))
        assert response.solution.h.shape == (4, 6, 4)
    assert torch.equal(response.y, model(X, T, h0)) == model.is_map  # a map reads x at the samples alone
    if model.is_map:
        with pytest.raises(ValueError, match="is a map, not an ODE: leave solver out"):
            model(X, T, h0, solver=Fused("rk4"))


@pytest.mark.parametrize("cls", list(MODELS.values()))
def test_the_state_equation_is_what_the_response_follows(cls):
    model = perturb_bias(cls(2, 4, 1, "tanh", "diagonal", seed=0, dtype=F64))
    h = model.rest_state()
    field = model.field()
    rest = model.state_equation(h, field(h.unsqueeze(0), torch.zeros(1, 2, dtype=F64))[0], 0.1)
    assert torch.allclose(rest, h if model.is_map else torch.zeros_like(h), atol=1e-12)
    t = torch.tensor([0.0, 1e-6], dtype=F64)
    states = model.respond(X[:, :2], t, h, interpolation="hold").solution.h
    value = model.state_equation(states[:, 0], field(states[:, 0], X[:, 0]), t[1])
    expected = value if model.is_map else states[:, 0] + t[1] * value
    assert torch.allclose(states[:, 1], expected, rtol=0, atol=1e-11)


def test_a_diverged_response_comes_as_it_is_where_that_is_asked_for():
    model = DiscreteSSM(2, 2, 1, "linear", "diagonal", seed=0, dtype=F64)
    model.set_matrix(torch.diag(torch.tensor([1e200, 0.5], dtype=F64)))
    with pytest.raises(DivergedSolve):
        model.respond(X, T, "zero")
    assert not torch.isfinite(model.respond(X, T, "zero", check=False).y).all()


@pytest.mark.parametrize(
    ("h0", "message"),
    [
        (torch.full((4,), math.nan, dtype=F64), "h0 holds NaN or infinite values"),
        (torch.zeros(4, dtype=torch.complex128), "h0 is a torch.complex128 tensor, expected a dense tensor of real numbers"),
        (["a"], "h0 is .* expected a tensor of real numbers"),
        ("nowhere", "got 'nowhere'"),
        (torch.zeros(7, dtype=F64), "h0 must have a shape that broadcasts to"),
    ],
)
def test_an_initial_state_that_is_none_is_refused(h0, message):
    for cls in (ContinuousRNN, DiscreteSSM):
        with pytest.raises(ValueError, match=message):
            cls(2, 4, 1, seed=0, dtype=F64)(X, T, h0)


def test_without_a_seed_weights_follow_torchs_generator():
    torch.manual_seed(1)
    first, second = ContinuousRNN(1, 4, 1), ContinuousRNN(1, 4, 1)
    torch.manual_seed(1)
    again = ContinuousRNN(1, 4, 1)
    assert not torch.equal(first.c, second.c)
    assert torch.equal(first.c, again.c)
    state = torch.get_rng_state()
    member(replicate(again, 3), 1)  # copies are not drawn
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.filterwarnings("ignore::odernn.InaccurateSolve")  # of relu: the copies are as they are
@pytest.mark.parametrize("cls", list(MODELS.values()))
def test_models_pickle_and_copy(cls, tmp_path):
    for activation in ACTIVATIONS:
        model = cls(2, 4, 1, activation, "diagonal", seed=0, dtype=F64)
        torch.save(model, tmp_path / "model.pt")
        copies = pickle.loads(pickle.dumps(model)), copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)
        for other in copies:
            assert torch.equal(other(X, T), model(X, T))


def test_half_precision_models_answer_to_their_precision():
    model = ContinuousRNN(2, 3, 1, seed=0, dtype=torch.float32)
    x = X[:, :6].float()
    solver = Fused("rk4", 8, check=False)
    expected = model(x, T, solver=solver)
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(model).to(dtype)
        assert torch.allclose(half(x.to(dtype), T, solver=solver).float(), expected, atol=0.05)
