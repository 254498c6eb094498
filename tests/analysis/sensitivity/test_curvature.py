from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from analysis import WeightMatrix, expected_gauss_newton, loss_curvature
from analysis.sensitivity import curvature
from odernn import ContinuousRNN, Data, DiscreteSSM, LeakyRNN, TorchDiffEq
from odernn.losses import LOSSES
from targets import inputs

# PyTorch's own forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

T = torch.linspace(0, 1, 6, dtype=torch.float64)
X = inputs.white_noise(T, 4, seed=0)
Y = torch.randn(4, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HOLES = torch.where(torch.rand(Y.shape, generator=torch.Generator().manual_seed(1)) < 0.3, torch.nan, Y)
STEPS = TorchDiffEq("rk4", adjoint=False, step_size=0.05, check=False)


def data(y=Y):
    return Data(T, X, y, X, y)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(1, 2, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x):
        return self.head(self.cell(x)[0])


MODELS = {
    "rnn": (lambda: ContinuousRNN(1, 2, 2, "tanh", "symmetric", "exp", seed=0, dtype=torch.float64), STEPS),
    "leaky": (lambda: LeakyRNN(1, 2, 2, "tanh", seed=0, dtype=torch.float64), STEPS),
    "map": (lambda: DiscreteSSM(1, 2, 2, "tanh", "complex", "lru", seed=0, dtype=torch.float64), None),
    "gru": (Net, None),
}


def by_reverse_mode(model, solver, loss, y, mask):
    """Both matrices from rows of the Jacobian and of the Hessian, backwards."""
    if isinstance(model, DiscreteSSM):
        model.backend = "torch"  # whose gradients differentiate again
    names, weights = zip(*model.named_parameters())
    sizes = [weight.numel() for weight in weights]

    def outputs(theta):
        parts = {name: part.reshape(w.shape) for name, part, w in zip(names, theta.split(sizes), weights)}
        inputs_of = (X, T) if hasattr(model, "respond") else (X,)
        return functional_call(model, parts, inputs_of, {"solver": solver} if solver else {})

    theta = torch.cat([weight.detach().flatten() for weight in weights])
    J = torch.autograd.functional.jacobian(outputs, theta)
    here = outputs(theta).detach()
    at_outputs = torch.autograd.functional.hessian(lambda z: LOSSES[loss](z, y, mask), here)
    gauss_newton = torch.einsum("btok,btocse,csel->kl", J, at_outputs, J)
    return gauss_newton, torch.autograd.functional.hessian(lambda theta: LOSSES[loss](outputs(theta), y, mask), theta)


@pytest.mark.parametrize("loss", ["mse", "time_weighted"])
@pytest.mark.parametrize("y", [Y, HOLES], ids=["whole", "holes"])
@pytest.mark.parametrize("name", list(MODELS))
def test_both_curvatures_are_those_of_reverse_mode(name, y, loss):
    torch.manual_seed(0)
    make, solver = MODELS[name]
    model, given = make(), data(y)
    gauss_newton, hessian = by_reverse_mode(model, solver, loss, given.y, given.mask)
    for kind, expected in (("gauss_newton", gauss_newton), ("hessian", hessian)):
        found = loss_curvature(model, given, loss, kind=kind, solver=solver)
        torch.testing.assert_close(found.matrix, expected, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(expected).flip(0), rtol=1e-7, atol=1e-9)
        assert found.largest == float(found.eigenvalues[0])
        assert found.trace == pytest.approx(float(expected.trace()))


def test_they_agree_where_the_model_fits():
    make, solver = MODELS["rnn"]
    model = make()
    fitted = data(model(X, T, solver=solver).detach())
    both = [loss_curvature(model, fitted, kind=kind, solver=solver).matrix for kind in ("gauss_newton", "hessian")]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-10)


def test_blocks_are_parts_and_chosen_weights_give_them():
    model = MODELS["map"][0]()
    whole = loss_curvature(model, data())
    names = ["layers.0.U", "layers.0.recurrence.w"]
    for part in (whole.block(*names), loss_curvature(model, data(), weights=names)):
        assert isinstance(part, WeightMatrix)
        assert part.names == tuple(names)
        assert part.shapes == ((2, 1), (1,))
        torch.testing.assert_close(part.matrix, loss_curvature(model, data(), weights=names).matrix)
    torch.testing.assert_close(whole.by_name()["c"].flatten(), whole.block("c").matrix.diagonal())


def test_sequences_may_be_taken_in_parts(monkeypatch):
    model = MODELS["map"][0]()
    whole = loss_curvature(model, data(HOLES)).matrix
    monkeypatch.setattr(curvature, "_JACOBIAN_BYTES", 1)
    torch.testing.assert_close(loss_curvature(model, data(HOLES)).matrix, whole)


def test_on_much_white_noise_it_is_twice_the_exact_moments():
    model = DiscreteSSM(1, 2, 1, "linear", "diagonal", "exp", bias=False, seed=0, dtype=torch.float64)
    t = torch.arange(400, dtype=torch.float64)
    x = inputs.white_noise(t, 100, seed=0)
    found = loss_curvature(model, Data(t, x, x, x[:1], x[:1]))
    expected = 2 * expected_gauss_newton(model).matrix
    # 40,000 samples of squares
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=0.05 * float(expected.max()))


def test_times_of_each_sequence_are_refused_in_a_line():
    times = torch.stack([T, 1.3 * T])
    with pytest.raises(ValueError, match=r"give \(time,\)"):
        loss_curvature(MODELS["rnn"][0](), Data(times, X[:2], Y[:2], X[:2], Y[:2], t_validation=times), solver=STEPS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: loss_curvature(model, (X, Y)), "data is a tuple"),
        (lambda model: loss_curvature(model, data(), "mae"), "unknown loss"),
        (
            lambda model: loss_curvature(model, data(), lambda y, target, mask: (y - target).abs().mean()),
            "weighted sum of squares",
        ),
        (lambda model: loss_curvature(model, data(), kind="newton"), "unknown kind"),
        (lambda model: loss_curvature(model, data(), weights=["w"]), "some of c, layers.0.U"),
        (lambda model: loss_curvature(nn.Linear(1, 5000, dtype=torch.float64), data()), "10000 weights"),
        (lambda model: loss_curvature(model, data()).block(), "weights are"),
    ],
)
def test_what_has_no_curvature_is_refused_in_a_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(MODELS["map"][0]())
    assert "\n" not in str(caught.value)
