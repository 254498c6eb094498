"""Equations of the user's own: against the models of odernn that they write out, and against what can be computed by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from problems import F64

from analysis.fixed_points import fixed_points
from analysis.lyapunov import lyapunov_exponents
from analysis.memory import memory_function
from analysis.perturbation import perturbation_error
from odernn import ContinuousRNN, NeuralODE, TorchDiffEq, linear, member, replicate, stack
from odernn.training import Data, Trainer, TrainingConfig, train
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 5, 26, dtype=F64)
X = inputs.random_fourier(T, 4, seed=0)
H = ConvolutionalFunctional(kernels.exponential())
TIGHT = TorchDiffEq("dopri5", 1e-10, 1e-12, adjoint=False)


class Written(torch.nn.Module):
    """A ContinuousRNN as the user would write it."""

    def __init__(self, model):
        super().__init__()
        field = model.field()
        (layer,) = field.layers
        self.W, self.U, self.b = (torch.nn.Parameter(w.detach().clone()) for w in (layer.W.to_dense(), layer.U, layer.b))

    def forward(self, t, h, x):
        return torch.tanh(h @ self.W.mT + x @ self.U.mT + self.b)


class Mlp(torch.nn.Module):
    def __init__(self, dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(dtype)
        self.leak = torch.nn.Parameter(torch.tensor(1.0, dtype=dtype))

    def forward(self, t, h, x):
        return self.net(torch.cat([h, x], -1)) - self.leak * h


def hiding(module):
    return lambda t, h, x: module(t, h, x)


def pair():
    """A model of odernn and the same equation as a module."""
    rnn = ContinuousRNN(1, 3, 1, seed=1, dtype=F64)
    with torch.no_grad():
        rnn.layer_weights[0].b.copy_(torch.tensor([0.3, -0.2, 0.1]))
    own = NeuralODE(Written(rnn), 3)
    with torch.no_grad():
        own.c.copy_(rnn.c)
    return rnn, own


def test_it_is_the_model_that_it_writes_out():
    rnn, own = pair()
    assert torch.allclose(own.rest_state(), rnn.rest_state(), atol=1e-12)
    assert torch.allclose(own(X, T, solver=TIGHT), rnn(X, T, solver=TIGHT), atol=1e-9)
    for interpolation in ("hold", "linear"):
        assert torch.allclose(
            own(X, T, solver=TIGHT, interpolation=interpolation), rnn(X, T, solver=TIGHT, interpolation=interpolation), atol=1e-9
        )
    # the slopes of tanh at rest, where W h + b = 0, are 1: df/dh is W
    ours, theirs = (one.spectrum().real.sort().values for one in (own, rnn))
    assert torch.allclose(ours, theirs, atol=1e-9)
    assert float(own.stability_margin().detach()) == pytest.approx(float(rnn.stability_margin().detach()), abs=1e-9)


@pytest.mark.parametrize("probe", ["heaviside", "impulse", "reversed"])
def test_its_memory_is_that_of_the_model(probe):
    rnn, own = pair()
    ours, theirs = (memory_function(one, T[::5], probe=probe) for one in (own, rnn))
    assert torch.allclose(ours.values, theirs.values, atol=1e-7)
    assert ours.spectrum_rate == pytest.approx(theirs.spectrum_rate)
    # a floor that is no smaller than the error and within a few orders of the model's own
    assert float((ours.values - theirs.values).abs().max()) < 100 * float(ours.floor + theirs.floor)
    assert 1e-2 * theirs.floor < ours.floor < 1e2 * theirs.floor


def test_exponents_fixed_points_and_perturbations_are_those_of_the_model():
    rnn, own = pair()
    ours, theirs = fixed_points(own), fixed_points(rnn)
    assert torch.allclose(ours.points, theirs.points, atol=1e-8)
    assert ours.stability == theirs.stability
    ours, theirs = (lyapunov_exponents(one, T, x=X[0]).exponents for one in (own, rnn))
    assert torch.allclose(ours, theirs, atol=1e-7)
    options = {"betas": [0, 0.1], "steps": 3, "restarts": 0, "draws": 2}
    ours, theirs = (perturbation_error(one, H, X[:2, :11], T[:11], **options) for one in (own, rnn))
    assert ours.errors[0] == pytest.approx(theirs.errors[0], rel=1e-5)
    # the balls are those of the same matrices; the searches start elsewhere
    assert ours.errors[1] == pytest.approx(theirs.errors[1], rel=0.1)


def test_gradients_by_the_adjoint_are_those_of_backpropagation():
    own = NeuralODE(Mlp(), 3, seed=0)
    found = []
    for adjoint in (True, False):
        own.zero_grad()
        x = X.clone().requires_grad_()
        own(x, T, solver=TorchDiffEq("dopri5", 1e-10, 1e-12, adjoint=adjoint)).square().mean().backward()
        found.append([x.grad, *(weight.grad.clone() for weight in own.parameters())])
    assert len(found[0]) == 7  # x, c, two matrices and two vectors of the net, the leak
    for one, other in zip(*found):
        assert float(other.abs().max()) > 0
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-12)


def test_gradients_are_those_of_finite_differences_through_the_rest_state():
    own = NeuralODE(Mlp(), 3, seed=0)

    def loss():
        return own(X, T, solver=TIGHT).square().mean()

    loss().backward()
    bias = own.f.net[2].bias
    expected = bias.grad[0].item()
    values = []
    for move in (1e-5, -1e-5):
        with torch.no_grad():
            bias[0] += move
            values.append(loss().item())
            bias[0] -= move
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)


def test_time_is_that_of_the_samples():
    """dh/dt = cos t from any t[0], with a clock that does not begin at 0."""
    own = NeuralODE(lambda t, h, x: torch.cos(t).expand_as(h), 1, readout="state", dtype=F64)
    assert not own.autonomous
    for start in (0.0, 3.0):
        t = T + start
        for adjoint in (True, False):
            y = own(X, t, solver=TorchDiffEq("dopri5", 1e-10, 1e-12, adjoint=adjoint))
            assert torch.allclose(y, (t.sin() - t[0].sin()).expand(4, -1).unsqueeze(-1), atol=1e-8)


def test_a_field_that_changes_with_time_has_exponents_and_memory_but_no_fixed_points():
    """dh/dt = -(1 + t) h + x: the tangent falls as e^{-(t + t^2 / 2)}; d/dt H_t(u) with rho(t, s) known."""
    own = NeuralODE(lambda t, h, x: -(1 + t) * h + x, 1, readout="state", dtype=F64)
    found = lyapunov_exponents(own, T, transient=0.0)
    assert float(found.exponents[0]) == pytest.approx(-(5 + 12.5) / 5, rel=1e-5)
    with pytest.raises(ValueError, match="depends on t"):
        fixed_points(own)
    assert torch.isnan(own.stability_margin())
    M = memory_function(own, T)
    assert M.spectrum_rate is None
    assert float(M.values[0]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="reversed"):
        memory_function(own, T, probe="reversed")
    h = own.solve(linear(T, torch.ones_like(X)), T, solver=TIGHT).h[0, :, 0]
    assert torch.allclose(M.values, (1 - (1 + T) * h).abs(), atol=1e-7)


def test_kinks_and_jumps_are_handed_to_the_solver():
    """dh/dt = x(t) of a square wave in single steps: exact only where no step straddles a jump."""
    own = NeuralODE(lambda t, h, x: x + 0 * h, 1, readout="state", dtype=F64)
    x = torch.tensor([1.0, -1.0] * 13, dtype=F64).reshape(1, -1, 1)
    y = own(x, T, interpolation="hold", solver=TorchDiffEq("dopri5", 1e-3, 1e-3, adjoint=False))
    assert torch.allclose(y[0, 1:, 0], (x[0, :-1, 0] * T.diff()).cumsum(0), atol=1e-12)


def test_readouts_of_ones_own():
    head = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    own = NeuralODE(Mlp(), 3, readout=head)
    assert own.output_size == 2
    response = own.respond(X, T)
    assert torch.allclose(response.y, head(response.solution.h))
    response.y.square().mean().backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in head.parameters())
    # dy/dt of the memory against a difference of y
    M = memory_function(own, T, amplitudes=[1.0], directions=torch.ones(1, 1))
    fine = torch.tensor([0.0, 0.99, 1.0, 1.01], dtype=F64)
    ones = torch.ones(1, 4, 1, dtype=F64)
    y, zero = own(ones, fine, solver=TIGHT), own(0 * ones, fine, solver=TIGHT)
    slope = ((y - zero)[0, 3] - (y - zero)[0, 1]) / 0.02
    assert float(M.values[5]) == pytest.approx(float(torch.linalg.vector_norm(slope).detach()), rel=1e-4)
    state = NeuralODE(Mlp(), 3, readout="state")
    assert state.output_size == 3
    assert not any(name == "c" for name, _ in state.named_parameters())


@pytest.mark.parametrize("readout", ["linear", torch.nn.Linear(3, 2, dtype=F64)])
def test_ensembles_are_their_members(readout):
    models = [NeuralODE(Mlp(), 3, readout=copy.deepcopy(readout), seed=k) for k in range(3)]
    for k, model in enumerate(models):
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(k), dtype=F64)
    ensemble = stack(models)
    y = ensemble(X, T, solver=TIGHT)
    for k, model in enumerate(models):
        assert torch.allclose(y[k], model(X, T, solver=TIGHT), atol=1e-9)
        assert torch.equal(member(ensemble, k).f.leak, model.f.leak)
    assert torch.allclose(ensemble.stability_margin(), torch.stack([model.stability_margin() for model in models]))
    two = replicate(ensemble, 2)
    assert two.ensemble == (2, 3)
    assert torch.allclose(two(X, T, solver=TIGHT)[1], y, atol=1e-9)


def test_training_lowers_the_error_by_every_optimiser():
    for optimizer in ("lbfgs", "lm", "adam"):
        own = NeuralODE(Mlp(), 3, seed=0)
        before = own.state_dict()
        data = Data(T, X, H(X, T), X, H(X, T))
        start = Trainer(own, data, TrainingConfig(optimizer=optimizer, epochs=1)).validation_error()
        solver = TorchDiffEq("rk4", adjoint=False, check=False)
        trainer = train(own, data, TrainingConfig(optimizer=optimizer, epochs=2), solver=solver, progress=False)
        assert trainer.best_error < start
        assert own.state_dict().keys() == before.keys()
        assert math.isfinite(trainer.history[-1]["stability_margin"])


def test_single_precision_copies_and_state_dicts():
    own = NeuralODE(Mlp(torch.float32), 3, seed=0)
    x, t = X.float(), T.float()
    y = own(x, t)
    assert y.dtype == torch.float32
    other = copy.deepcopy(own)
    for weight in other.parameters():
        torch.nn.init.zeros_(weight)
    other.load_state_dict(own.state_dict())
    assert torch.equal(other(x, t), y)
    assert torch.allclose(own.double()(X, T), y.double(), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuralODE("tanh", 3), "expected a torch.nn.Module or function"),
        (lambda: NeuralODE(torch.nn.Linear, 3), "expected a torch.nn.Module or function"),
        (lambda: NeuralODE(Mlp()), "state_size is not given"),
        (lambda: NeuralODE(Mlp(), 2), "failed"),
        (lambda: NeuralODE(lambda h, x: -h, 2), "failed"),
        (lambda: NeuralODE(lambda t, h, x: -h[:, :1], 2), r"expected dh/dt.*\(3, 2\)"),
        (lambda: NeuralODE(lambda t, h, x: (-h).float(), 2, dtype=F64), "expected dh/dt"),
        (lambda: NeuralODE(lambda t, h, x: 3.0, 2), "expected a tensor"),
        (lambda: NeuralODE(lambda t, h, x: h - h.mean(0), 2), "mixes the sequences"),
        (lambda: NeuralODE(lambda t, h, x: -h * torch.rand(()), 2), "is random"),
        (lambda: NeuralODE(hiding(Mlp()), 3, dtype=F64), "does not see"),
        (lambda: NeuralODE(Mlp(), 3, readout="mean"), "readout"),
        (lambda: NeuralODE(Mlp(), 3, 2, readout="state"), "output_size"),
        (lambda: NeuralODE(Mlp(), 3).set_matrix(torch.eye(3)), "has no W"),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_without_a_rest_it_starts_at_zero():
    own = NeuralODE(lambda t, h, x: torch.sigmoid(h) + x, 2, dtype=F64)
    assert torch.equal(own.rest_state(), torch.zeros(2, dtype=F64))
    assert torch.isnan(own.spectrum()).all()
    bistable = NeuralODE(lambda t, h, x: h - h**3 + 0.1 + x, 1, dtype=F64)
    root = bistable.rest_state()
    assert float(root - root**3 + 0.1) == pytest.approx(0.0, abs=1e-12)
    assert float(root) > 1  # where the flow from 0 leads, not the root next to 0
    assert torch.equal(NeuralODE(lambda t, h, x: 1 - h + x, 1, dtype=F64, initial="zero").rest_state(), torch.zeros(1, dtype=F64))


class Driven(torch.nn.Module):
    """dh/dt = x - h + a t, with a = 0 at the start: nothing shows then that it depends on t."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, t, h, x):
        return x - h + self.a * t


def test_a_dependence_on_time_that_training_finds_is_seen():
    model = NeuralODE(Driven(), state_size=1, input_size=1, readout="state")
    t = torch.linspace(0, 2, 21, dtype=torch.float64)
    x = torch.zeros(1, 21, 1, dtype=torch.float64)
    model(x, t, "zero")[0, -1].sum().backward()
    (weight,) = model.parameters()
    # h = a (t - 1 + e^-t)
    assert float(weight.grad) == pytest.approx(1 + math.exp(-2), rel=1e-4)
    with torch.no_grad():
        weight.fill_(1.0)
    y = model(x, t, "zero")
    assert float(y[0, -1].detach()) == pytest.approx(1 + math.exp(-2), rel=1e-4)
    h = "zero"
    for k in range(20):
        one, h = model.step(h, x[:, k], x[:, k + 1], 0.1, t=t[k])
    torch.testing.assert_close(one, y[:, -1], rtol=1e-4, atol=1e-6)
