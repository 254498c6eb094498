from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch.func import functional_call, jacfwd

from analysis import (
    Correlated,
    OrnsteinUhlenbeck,
    WhiteNoise,
    expected_gauss_newton,
    expected_loss,
    expected_sensitivity,
)
from analysis.sensitivity.poles import impulse_response, poles
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, LeakyRNN, StateSpaceModel
from odernn.ensembles import member, stack

# PyTorch's own forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

PAIRS = [("complex", "softplus"), ("complex", "lru"), ("lru", "exp"), ("lru", "inverse")]
REAL = [("diagonal", "direct"), ("diagonal", "inverse"), ("diagonal", "lru"), ("symmetric", "softplus"), ("dense", "direct")]


def linear(kind, recurrence, parameterization, *, size=4, inputs=1, outputs=2, seed=0, bias=True):
    model = kind(inputs, size, outputs, "linear", recurrence, parameterization, bias=bias, seed=seed, dtype=torch.float64)
    if bias:
        nn.init.normal_(model.layer_weights[0].b, generator=torch.Generator().manual_seed(seed))
    return model


class Gains(nn.Module):
    """c (s - W)^-1 U at points s of the complex plane, and the response to b, as functions of the raw weights."""

    def __init__(self, model, s, of):
        super().__init__()
        self.model, self.s, self.of = model, s, of

    def forward(self):
        field = self.model.field()
        (layer,) = field.layers
        W, U = layer.W.to_dense(), layer.U
        c = field.c if self.of == "output" else torch.eye(len(W), dtype=W.dtype)
        eye = torch.eye(len(W), dtype=torch.complex128)
        gains = c.to(eye) @ torch.linalg.solve(self.s[:, None, None] * eye - W, U.to(eye))
        shift = torch.eye(len(W), dtype=W.dtype) if self.model.time == "discrete" else 0 * W
        mean = c @ torch.linalg.solve(shift - W, layer.b) if layer.b is not None else 0 * c[:, 0]
        return torch.view_as_real(gains), mean


def by_frequencies(model, noise, of, count=400):
    """G as the integral over frequencies of derivatives of the gains by autograd."""
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if model.time == "discrete":
        w = math.pi * middle
        s, weights = torch.polar(torch.ones_like(w), w), torch.full_like(w, 1 / count)
        r = getattr(noise, "R", math.exp(-1 / noise.timescale) if isinstance(noise, OrnsteinUhlenbeck) else 0.0)
        power = (1 - r**2) / (1 - 2 * r * torch.cos(w) + r**2)
    else:
        w = (math.pi / 2 * middle).tan()
        s, weights = torch.complex(0 * w, w), (1 + w**2) / (2 * count)
        scale = getattr(noise, "timescale", None)
        power = torch.ones_like(w) if scale is None else 2 / scale / (scale**-2 + w**2)
    along = Gains(model, s, of)
    weights_of = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    gains, mean = jacfwd(lambda raw: functional_call(along, raw, ()))(weights_of)
    parts = [torch.view_as_complex(gains[name].flatten(4).movedim(3, -1).contiguous()) for name in weights_of]
    J, Jm = torch.cat(parts, -1), torch.cat([mean[name].flatten(1) for name in weights_of], -1)
    return torch.einsum("f,foik,foil->kl", (weights * power).to(J), J, J.conj()).real + Jm.mT @ Jm


@pytest.mark.parametrize("of", ["output", "state"])
@pytest.mark.parametrize("noise", [WhiteNoise(), OrnsteinUhlenbeck(2.5)], ids=["white", "coloured"])
@pytest.mark.parametrize(("recurrence", "parameterization"), [*REAL, *PAIRS])
@pytest.mark.parametrize("kind", [StateSpaceModel, DiscreteSSM])
def test_moments_of_all_weights_are_those_of_gains_by_autograd(kind, recurrence, parameterization, noise, of):
    model = linear(kind, recurrence, parameterization, inputs=2, seed=3)
    torch.testing.assert_close(
        expected_gauss_newton(model, noise, of=of).matrix, by_frequencies(model, noise, of), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("r", [0.0, 0.9])
def test_the_moments_of_eigenvalues_are_the_published_hessian_of_a_diagonal_layer(r):
    """[VEG] A.3 and its code: with S(z_i, z_j) = d2/dz_i dz_j (1 - r^2 z_i z_j) / ((1 - z_i z_j) (1 - r z_i) (1 - r z_j)),
    A = a_i a_j S(z_i, z_j) and B = a_i conj(a_j) S(z_i, conj z_j) the block of the real and imaginary parts of z_i and z_j is
    [[Re (A + B), Im (B - A)], [-Im (A + B), Re (B - A)]] / 2."""
    model = linear(DiscreteSSM, "complex", "direct", size=4, outputs=1, bias=False, seed=2)
    own = model.layer_weights[0]
    n, angle = own.recurrence.w.detach(), own.recurrence.omega.detach()
    z = torch.polar(n, angle)
    a = torch.complex(model.c[0, ::2], -model.c[0, 1::2]) * torch.complex(own.U[::2, 0], own.U[1::2, 0])
    circle = np.exp(2j * np.pi * np.arange(24) / 24)

    def S(z1, z2, size=0.02):
        """By Cauchy's integrals."""
        s1, s2 = z1 + size * circle[:, None], z2 + size * circle
        values = (1 - r**2 * s1 * s2) / ((1 - s1 * s2) * (1 - r * s1) * (1 - r * s2))
        return np.mean(values / (circle[:, None] * circle)) / size**2

    matrix = np.empty((4, 4))
    for i in range(2):
        for j in range(2):
            zi, zj, ai, aj = (complex(part.detach()) for part in (z[i], z[j], a[i], a[j]))
            A, B = ai * aj * S(zi, zj), ai * aj.conjugate() * S(zi, zj.conjugate())
            block = np.array([[(A + B).real, (B - A).imag], [-(A + B).imag, (B - A).real]]) / 2
            polar = [
                np.array([[np.cos(t), -m * np.sin(t)], [np.sin(t), m * np.cos(t)]]) for m, t in zip(n.numpy(), angle.numpy())
            ]
            matrix[np.ix_([i, 2 + i], [j, 2 + j])] = polar[i].T @ block @ polar[j]
    found = expected_gauss_newton(model, Correlated(r)).block("layers.0.recurrence.w", "layers.0.recurrence.omega")
    np.testing.assert_allclose(found.matrix.numpy(), matrix, rtol=1e-10, atol=1e-12)


def test_an_euler_step_is_a_map_of_its_own_eigenvalues():
    dt = 0.2
    euler = linear(DiscreteRNN, "diagonal", "softplus", bias=False)
    z = 1 + dt * euler.spectrum().real
    same = linear(DiscreteSSM, "diagonal", "direct", bias=False)
    same.load_state_dict({**euler.state_dict(), "layers.0.recurrence.w": z, "layers.0.U": dt * euler.layer_weights[0].U})
    noise = OrnsteinUhlenbeck(1.3)
    found, other = expected_sensitivity(euler, noise, dt=dt), expected_sensitivity(same, OrnsteinUhlenbeck(1.3 / dt))
    slope = dt * euler.parameterization.derivative(euler.layer_weights[0].recurrence.w)
    torch.testing.assert_close(found["layers.0.recurrence.w"], slope.detach() ** 2 * other["layers.0.recurrence.w"])
    with pytest.raises(ValueError, match="give dt"):
        expected_sensitivity(euler)


def test_rnns_and_leaky_rnns_that_are_linear_are_models_as_any():
    rnn, ssm = (linear(kind, "complex", "exp") for kind in (ContinuousRNN, StateSpaceModel))
    torch.testing.assert_close(expected_gauss_newton(rnn).matrix, expected_gauss_newton(ssm).matrix)
    leaky = LeakyRNN(1, 3, 1, "linear", tau=2.0, bias=False, seed=0, dtype=torch.float64)
    torch.testing.assert_close(
        expected_gauss_newton(leaky).matrix, by_frequencies(leaky, WhiteNoise(), "output"), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize(("parameterization", "limit"), [("exp", 0.25), ("softplus", 0.25), ("direct", None), ("inverse", 1.0)])
def test_one_slow_mode_is_as_sensitive_as_the_derivative_of_f_says(parameterization, limit):
    """|f'|^2 / (4 rho^3) for white noise; times rho (exp, softplus) or by itself (inverse, a = 1) it has a limit."""
    rho = 1e-4
    model = linear(StateSpaceModel, "diagonal", parameterization, size=1, outputs=1, bias=False)
    model.set_matrix(torch.tensor([[-rho]], dtype=torch.float64))
    nn.init.ones_(model.layer_weights[0].U)
    found = float(expected_sensitivity(model)["layers.0.recurrence.w"])
    slope = float(model.parameterization.derivative(model.layer_weights[0].recurrence.w.detach()))
    assert found == pytest.approx(slope**2 / (4 * rho**3), rel=1e-9)
    if limit is not None:
        assert found * (rho if parameterization != "inverse" else 1.0) == pytest.approx(limit, rel=1e-3)


# --- losses -------------------------------------------------------------------------------------------------------------------


def by_lyapunov(model, target, timescale):
    """E |y - y*|^2 from the covariance of both states, and of an Ornstein-Uhlenbeck input of maps or flows."""
    discrete = model.is_map
    layers = [one.field().layers[0] for one in (model, target)]
    A = scipy.linalg.block_diag(*(layer.W.to_dense().detach().numpy() for layer in layers))
    B = np.concatenate([layer.U.detach().numpy() for layer in layers])
    C = np.concatenate([model.c.detach().numpy(), -target.c.detach().numpy()], 1)
    if timescale is not None:
        d = B.shape[1]
        own = math.exp(-1 / timescale) if discrete else -1 / timescale
        A = np.block([[A, B], [np.zeros((d, len(A))), own * np.eye(d)]])
        strength = 1 - own**2 if discrete else 2 / timescale
        B = np.concatenate([0 * B, math.sqrt(strength) * np.eye(d)])
        C = np.concatenate([C, np.zeros((len(C), d))], 1)
    solve = scipy.linalg.solve_discrete_lyapunov if discrete else scipy.linalg.solve_continuous_lyapunov
    P = solve(A, B @ B.T if discrete else -B @ B.T)
    means = [one.field().c @ one.rest_state() for one in (model, target)]
    return (np.trace(C @ P @ C.T) + float((means[0] - means[1]).detach().square().sum())) / len(C)


@pytest.mark.parametrize("timescale", [None, 6.0])
@pytest.mark.parametrize(("recurrence", "parameterization"), [*REAL, *PAIRS])
@pytest.mark.parametrize("kind", [StateSpaceModel, DiscreteSSM])
def test_the_expected_loss_is_that_of_the_covariance(kind, recurrence, parameterization, timescale):
    model = linear(kind, recurrence, parameterization, inputs=2, size=6)
    target = linear(kind, "dense", "direct", inputs=2, size=3, seed=1)
    noise = WhiteNoise() if timescale is None else OrnsteinUhlenbeck(timescale)
    assert float(expected_loss(model, target, noise).detach()) == pytest.approx(by_lyapunov(model, target, timescale), rel=1e-9)


@pytest.mark.parametrize(("recurrence", "parameterization"), [("dense", "direct"), ("diagonal", "direct"), ("lru", "exp")])
def test_the_loss_on_a_horizon_is_that_of_impulses_at_every_sample(recurrence, parameterization):
    T = 9
    model, target = linear(DiscreteSSM, recurrence, parameterization), linear(DiscreteSSM, "complex", "lru", seed=1)
    if parameterization == "direct" and recurrence == "diagonal":  # unstable, and with a negative eigenvalue
        with torch.no_grad():
            model.layer_weights[0].recurrence.w.copy_(torch.tensor([1.3, -0.9, 0.2, 0.0]))
    t, impulses = torch.arange(T, dtype=torch.float64), torch.eye(T, dtype=torch.float64).unsqueeze(-1)
    rest = torch.zeros(1, T, 1, dtype=torch.float64)
    with torch.no_grad():
        moved = [one(impulses, t) - one(rest, t) for one in (model, target)]
        mean = (model(rest, t) - target(rest, t)).square().mean()
        expected = (moved[0] - moved[1]).square().sum(0).mean() + mean
        assert float(expected_loss(model, target, horizon=T)) == pytest.approx(float(expected), rel=1e-10)


def test_a_long_horizon_leads_to_the_stationary_loss():
    model, target = linear(DiscreteSSM, "complex", "exp"), linear(DiscreteSSM, "dense", "direct", seed=1)
    # the first samples, before the states have settled, weigh like 1 / T
    losses = [float(expected_loss(model, target, horizon=T).detach()) for T in (2000, 4000)]
    assert 2 * losses[1] - losses[0] == pytest.approx(float(expected_loss(model, target).detach()), rel=1e-9)


@pytest.mark.parametrize("horizon", [None, 20])
def test_gradients_are_exact(horizon):
    model, target = linear(DiscreteSSM, "lru", "softplus"), linear(DiscreteSSM, "dense", "direct", seed=1)
    names, weights = zip(*model.named_parameters())

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return expected_loss(self.model, target, horizon=horizon)

    def loss(*values):
        return functional_call(Loss(), {f"model.{name}": value for name, value in zip(names, values)}, ())

    assert torch.autograd.gradcheck(loss, [weight.detach().clone().requires_grad_() for weight in weights])


@pytest.mark.parametrize("kind", [StateSpaceModel, DiscreteSSM])
def test_the_hessian_at_the_minimum_is_twice_the_moments(kind):
    target = linear(kind, "diagonal", "exp", size=2)
    names, weights = zip(*target.named_parameters())

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = linear(kind, "diagonal", "exp", size=2)

        def forward(self):
            return expected_loss(self.model, target)

    along, sizes = Loss(), [weight.numel() for weight in weights]

    def loss(theta):
        parts = [part.reshape(weight.shape) for part, weight in zip(theta.split(sizes), weights)]
        return functional_call(along, {f"model.{name}": part for name, part in zip(names, parts)}, ())

    theta = torch.cat([weight.detach().flatten() for weight in weights])
    hessian = torch.autograd.functional.hessian(loss, theta)
    torch.testing.assert_close(hessian, 2 * expected_gauss_newton(target).matrix / target.output_size, rtol=1e-8, atol=1e-8)
    assert 0 <= float(loss(theta).detach()) < 1e-12


@pytest.mark.parametrize(("rate", "other"), [(0.7, 1.9), (1e-3, 4e-4), (1e-7, 3e-7)])
def test_a_normalised_mode_under_exp_has_one_landscape_whatever_its_memory(rate, other):
    models = []
    for rho in (rate, other):
        model = linear(StateSpaceModel, "diagonal", "exp", size=1, outputs=1, bias=False)
        model.set_matrix(torch.tensor([[-rho]], dtype=torch.float64))
        nn.init.constant_(model.layer_weights[0].U, math.sqrt(2 * rho))
        nn.init.ones_(model.c)
        models.append(model)
    assert float(expected_loss(*models).detach()) / 2 == pytest.approx(1 - 1 / math.cosh(math.log(rate / other) / 2), rel=1e-12)


@pytest.mark.parametrize("weight", [0.4, 1.7])
def test_in_maps_it_is_tanh_that_does_so(weight):
    """[VEG]: l = tanh w with gamma = sqrt(1 - l^2): 1 - sech(w - w*)."""
    models = []
    for z in (math.tanh(weight), math.tanh(1.1)):
        model = linear(DiscreteSSM, "diagonal", "direct", size=1, outputs=1, bias=False)
        model.set_matrix(torch.tensor([[z]], dtype=torch.float64))
        nn.init.constant_(model.layer_weights[0].U, math.sqrt(1 - z**2))
        nn.init.ones_(model.c)
        models.append(model)
    assert float(expected_loss(*models).detach()) / 2 == pytest.approx(1 - 1 / math.cosh(weight - 1.1), rel=1e-10)


def test_members_of_an_ensemble_have_their_own_losses_and_an_unstable_one_spoils_no_other():
    members = [linear(StateSpaceModel, "diagonal", "direct", seed=seed) for seed in range(3)]
    with torch.no_grad():
        members[1].layer_weights[0].recurrence.w[2] = 0.1
    target = linear(StateSpaceModel, "complex", "exp", seed=7)
    ensemble = stack(members)
    losses = expected_loss(ensemble, target)
    assert torch.isfinite(losses).tolist() == [True, False, True]
    assert float(losses[1].detach()) == math.inf
    losses.sum().backward()
    gradient = ensemble.layer_weights[0].recurrence.w.grad
    assert torch.isfinite(gradient).all(-1).tolist() == [True, False, True]
    for k in (0, 2):
        alone = member(ensemble, k)
        loss = expected_loss(alone, target)
        loss.backward()
        torch.testing.assert_close(losses[k], loss)
        torch.testing.assert_close(gradient[k], alone.layer_weights[0].recurrence.w.grad)


def test_only_the_weights_of_a_mode_that_grows_are_infinitely_sensitive():
    model = linear(StateSpaceModel, "diagonal", "direct")
    with torch.no_grad():
        model.layer_weights[0].recurrence.w[1] = 0.0
    found = expected_sensitivity(model)
    assert torch.isfinite(found["layers.0.b"]).tolist() == [True, False, True, True]
    assert torch.isfinite(found["layers.0.recurrence.w"]).tolist() == [True, False, True, True]
    assert torch.isfinite(found["layers.0.U"].flatten()).tolist() == [True, False, True, True]
    matrix = expected_gauss_newton(model)
    assert matrix.largest == math.inf == matrix.trace
    assert matrix.block("layers.0.recurrence.w").largest == math.inf


def test_impulse_responses_are_powers_however_they_come():
    model = linear(DiscreteSSM, "complex", "exp", inputs=2)
    W, U = model.field().layers[0].W.to_dense(), model.layer_weights[0].U
    expected = torch.stack([model.c @ torch.linalg.matrix_power(W, k) @ U for k in range(7)], -1)
    torch.testing.assert_close(impulse_response(model, 7), expected)
    dense = linear(DiscreteSSM, "dense", "direct", inputs=2)
    dense.set_matrix(W.detach())
    dense.load_state_dict({**dense.state_dict(), "c": model.c, "layers.0.U": U})
    torch.testing.assert_close(impulse_response(dense, 7), expected)


def test_single_precision_is_judged_in_double():
    model = linear(StateSpaceModel, "lru", "exp", bias=False)
    single = StateSpaceModel(1, 4, 2, "linear", "lru", "exp", bias=False, dtype=torch.float32)
    single.load_state_dict(model.state_dict())
    found = expected_gauss_newton(single).matrix
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected_gauss_newton(model).matrix, rtol=1e-4, atol=1e-5)


def test_a_defective_matrix_is_refused():
    model = linear(StateSpaceModel, "dense", "direct", size=2)
    model.set_matrix(torch.tensor([[-1.0, 1.0], [0.0, -1.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="condition number"):
        poles(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda flow, map_: expected_loss(flow, map_), "do not fit"),
        (lambda flow, map_: expected_loss(flow, 3), "target is"),
        (lambda flow, map_: expected_loss(flow, flow, 0.5), "noise is"),
        (lambda flow, map_: expected_loss(flow, flow, horizon=10), "those of maps"),
        (lambda flow, map_: expected_loss(map_, map_, Correlated(0.5), horizon=10), "white noise"),
        (lambda flow, map_: expected_loss(map_, map_, horizon=1), "horizon is 1"),
        (lambda flow, map_: expected_sensitivity(flow, Correlated(0.5)), "for maps"),
        (lambda flow, map_: expected_sensitivity(ContinuousRNN(1, 2, 1)), "activation 'tanh'"),
        (lambda flow, map_: expected_sensitivity(StateSpaceModel(1, 2, 1, "linear", num_layers=2)), "2 layers"),
        (lambda flow, map_: expected_sensitivity(StateSpaceModel(1, 2, 1, "linear", ensemble=(3,))), "ensemble"),
        (lambda flow, map_: expected_sensitivity(flow.requires_grad_(False)), "0 weights that are trained"),
        (lambda flow, map_: expected_gauss_newton(map_).block("w"), "expected some of c, layers.0.U"),
        (lambda flow, map_: expected_gauss_newton(map_, of="loss"), "unknown of"),
    ],
)
def test_what_has_no_exact_expectation_is_refused_in_a_line(call, message):
    flow, map_ = linear(StateSpaceModel, "diagonal", "exp"), linear(DiscreteSSM, "diagonal", "exp")
    with pytest.raises(ValueError, match=message) as caught:
        call(flow, map_)
    assert "\n" not in str(caught.value)
