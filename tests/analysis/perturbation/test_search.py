from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from problems import F64, perturb_bias

from analysis.linear.fits import ExponentialSum, fit_kernel
from analysis.perturbation import errors, perturbation_error
from odernn import Adaptive, ContinuousRNN, DivergedSolve, StateSpaceModel
from odernn.ensembles import member, replicate
from odernn.models import MODELS
from odernn.solvers import Solver, TorchDiffEq
from odernn.solvers.fused import Fused
from odernn.state_matrices import DiagonalMatrix
from targets import ConvolutionalFunctional, NonlinearFunctional, inputs, kernels

T = torch.linspace(0, 10, 41, dtype=F64)
X = inputs.random_fourier(T, 4, seed=0, length_scales=(0.5, 10.0))
H = ConvolutionalFunctional(kernels.exponential())
BETAS = [0.0, 0.03, 0.1, 0.3]
RK4 = TorchDiffEq("rk4", adjoint=False, check=False)


def make(activation="tanh", recurrence="dense", parameterization="direct", cls=ContinuousRNN, seed=0, **options):
    return perturb_bias(cls(1, 4, 1, activation, recurrence, parameterization, dtype=F64, seed=seed, **options))


def one_mode(parameterization="direct"):
    """rho_hat = e^-t exactly, U = c = 1."""
    return ExponentialSum(np.array([1.0]), np.array([1.0])).model(parameterization)


def finite(values):
    return np.where(np.isfinite(values), values, 1e300)


# --- against closed forms ---


@pytest.mark.parametrize("beta", [0.03, 0.3])
def test_the_sobolev_error_of_a_mode_is_the_closed_form(beta):
    # e = e^-t - e^-(1-b)t falls from 0 to its minimum and rises to 0 again: |e(0)| + TV is twice the depth.
    search = {"error": "kernel_sobolev", "horizon": math.inf, "blocks": "recurrent", "draws": 0, "restarts": 0}
    curve = perturbation_error(one_mode(), kernels.exponential(), None, None, [beta], **search)
    at = -math.log1p(-beta) / beta
    depth = math.exp(-(1 - beta) * at) - math.exp(-at)
    assert curve.scale == pytest.approx(1 + 1 + 1, rel=1e-6)
    assert curve.errors[0] == pytest.approx(1 / (1 - beta) - 1 + 2 * depth, rel=1e-3)
    assert curve.initial == pytest.approx(0, abs=1e-12)


def test_a_kernel_that_is_infinite_at_0_has_no_sobolev_error():
    singular = kernels.from_callable(lambda t: t**-0.5 * np.exp(-t), name="singular")
    with pytest.raises(ValueError, match=r"infinite at 0, .* take 'kernel_l1'"):
        perturbation_error(one_mode(), singular, None, None, [0.1], error="kernel_sobolev", horizon=10.0)


@pytest.mark.parametrize(
    ("parameterization", "blocks", "expected"),
    [
        ("direct", "recurrent", lambda b: 1 / (1 - b) - 1),
        ("direct", "all", lambda b: (1 + b) ** 2 / (1 - b) - 1),
        ("exp", "recurrent", lambda b: math.exp(b) - 1),
        ("softplus", "recurrent", lambda b: 1 / math.log1p((math.e - 1) * math.exp(-b)) - 1),
        ("inverse", "recurrent", lambda b: (math.sqrt(0.5) + b) ** 2 + 0.5 - 1),
        ("direct", ["c"], lambda b: b),
    ],
)
def test_the_ascent_finds_the_supremum_where_it_is_known(parameterization, blocks, expected):
    # |a e^-rt - e^-t|_1 = |a/r - 1| on [0, inf) for r <= 1 <= a: the worst is the slowest and largest.
    betas = [0.0, 0.01, 0.1, 0.5, 0.9]
    curve = perturbation_error(
        one_mode(parameterization),
        kernels.exponential(),
        None,
        None,
        betas,
        error="kernel_l1",
        horizon=math.inf,
        blocks=blocks,
    )
    assert curve.initial < 1e-9
    assert curve.scale == pytest.approx(1)
    # The grid resolves e^-t to some 1e-9.
    np.testing.assert_allclose(curve.errors, [expected(b) for b in betas], rtol=1e-6, atol=1e-8)


def test_past_the_stability_radius_a_linear_model_has_no_finite_error_on_all_times():
    curve = perturbation_error(
        one_mode(), kernels.exponential(), None, None, [0.5, 1.5], error="kernel_l1", horizon=math.inf, blocks="recurrent"
    )
    assert np.isfinite(curve.errors[0])
    assert curve.errors[1] > 1e6


@pytest.mark.parametrize("error", ["mse", "relative_l2", "time_weighted", "sup"])
def test_without_perturbation_the_error_is_the_one_of_the_formula(error):
    model = make()
    with torch.no_grad():
        y, y_hat = H(X, T).numpy(), model(X, T, solver=RK4).numpy()
    w = ((np.arange(41) + 1) / 41) ** 2
    w = (w / w.mean())[:, None]
    expected = {
        "mse": np.mean((y - y_hat) ** 2),
        "relative_l2": np.linalg.norm(y - y_hat) / np.linalg.norm(y),
        "time_weighted": np.mean((w * y - w * y_hat) ** 2),
        "sup": max(np.abs(y[k] - y_hat[k]).max() / np.abs(X[k].numpy()).max() for k in range(4)),
    }[error]
    curve = perturbation_error(model, H, X, T, [0.0], error=error, solver=RK4)
    assert curve.initial == pytest.approx(expected, rel=1e-10)
    assert curve.errors[0] == curve.initial
    if error in ("mse", "time_weighted"):
        weight = w if error == "time_weighted" else 1.0
        relative = np.linalg.norm(weight * (y - y_hat)) / np.linalg.norm(weight * y)
        assert curve.relative_initial == pytest.approx(relative, rel=1e-10)


# --- the search ---

CASES = [
    ("tanh", "dense", "direct", "all", "spectral"),
    ("tanh", "dense", "direct", "recurrent", "max"),
    ("hardtanh", "dense", "direct", "recurrent", "spectral"),
    ("relu", "dense", "direct", "all", "spectral"),
    ("tanh", "symmetric", "softplus", "all", "spectral"),
    ("tanh", "symmetric", "exp", "recurrent", "spectral"),
    ("tanh", "diagonal", "inverse", "all", "spectral"),
    ("tanh", "complex", "lru", "recurrent", "spectral"),
    ("sigmoid", "free_basis", "softplus", "all", "max"),
]


@pytest.mark.parametrize(("activation", "recurrence", "parameterization", "blocks", "norm"), CASES)
def test_the_ascent_is_at_least_the_best_of_a_thousand_draws(activation, recurrence, parameterization, blocks, norm):
    model = make(activation, recurrence, parameterization)
    arguments = {"error": "relative_l2", "blocks": blocks, "norm": norm}
    ascent = perturbation_error(model, H, X, T, BETAS, **arguments)
    sample = perturbation_error(model, H, X, T, BETAS, **arguments, search="sample", draws=1000, seed=1)
    assert (finite(ascent.searched) >= finite(sample.searched) * (1 - 1e-12)).all()
    # ... and beats it clearly somewhere, or there would be no need for it.
    assert (finite(ascent.errors) > 1.005 * finite(sample.errors)).any()


@pytest.mark.parametrize("kernel", [kernels.exponential(base=0.9), kernels.polynomial(1.1)])
@pytest.mark.parametrize("parameterization", ["direct", "exp"])
def test_the_ascent_is_at_least_the_best_of_a_thousand_draws_on_linear_models(kernel, parameterization):
    model = fit_kernel(kernel, 8, 1000.0, parameterization)
    betas = [0.0, 1e-3, 1e-2, 1e-1]
    arguments = {"error": "kernel_l1", "horizon": 1000.0}
    ascent = perturbation_error(model, kernel, None, None, betas, **arguments)
    sample = perturbation_error(model, kernel, None, None, betas, **arguments, search="sample", draws=1000, seed=1)
    assert (ascent.searched >= sample.searched * (1 - 1e-12)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("recurrence", "parameterization"), [("dense", "direct"), ("symmetric", "exp"), ("complex", "exp")])
@pytest.mark.parametrize("norm", ["spectral", "max"])
@pytest.mark.parametrize("search", ["ascent", "sample"])
def test_the_worst_case_lies_in_the_ball_and_has_the_reported_error(recurrence, parameterization, norm, search):
    model = make(recurrence=recurrence, parameterization=parameterization, bias=True)
    curve = perturbation_error(model, H, X, T, BETAS, search=search, norm=norm, draws=5, solver=RK4, steps=3)
    original = dict(model.named_parameters())
    for k, beta in enumerate(curve.betas):
        worst = member(curve.worst_case, k)
        for name, weight in worst.named_parameters():
            difference = (weight - original[name]).detach()
            if norm == "max" or name.endswith((".w", ".omega")):
                size = difference.abs().max()
            else:
                size = torch.linalg.matrix_norm(difference, 2) if difference.ndim == 2 else torch.linalg.vector_norm(difference)
            assert size <= beta * (1 + 1e-12)
            if search == "sample" and not curve.lifted[k]:
                assert size == pytest.approx(beta)  # the noise is scaled to the sphere
        with torch.no_grad():
            h0 = model.rest_state()
            y = worst(X, T, h0.expand(4, -1), solver=RK4)
        assert float((y - H(X, T)).square().mean()) == pytest.approx(curve.errors[k], rel=1e-9)


def test_only_the_named_blocks_are_perturbed():
    model = make(recurrence="symmetric", parameterization="softplus")
    for blocks, moved in (("recurrent", {"w", "A"}), (["w"], {"w"}), (["c", "layers.0.U"], {"c", "U"}), ("b", {"b"})):
        curve = perturbation_error(model, H, X, T, [0.1], blocks=blocks, search="sample", draws=3)
        worst, original = member(curve.worst_case, 0), dict(model.named_parameters())
        changed = {name.split(".")[-1] for name, weight in worst.named_parameters() if not torch.equal(weight, original[name])}
        assert changed == moved
        assert {name.split(".")[-1] for name in curve.blocks} == moved


def test_perturbing_more_blocks_or_a_larger_ball_errs_more():
    model = make(recurrence="symmetric", parameterization="softplus")
    every = perturbation_error(model, H, X, T, BETAS)
    recurrent = perturbation_error(model, H, X, T, BETAS, blocks="recurrent")
    assert (every.errors >= recurrent.errors).all()
    assert (np.diff(every.errors) > 0).all()
    # |d|_max <= b holds wherever |d|_2 <= b does, block by block.
    assert (perturbation_error(model, H, X, T, BETAS, norm="max").errors >= every.errors).all()


def test_the_curve_is_reported_non_decreasing_and_marks_where_the_search_was_not():
    model = make()
    betas = np.linspace(0.01, 0.2, 30)
    kept = perturbation_error(model, H, X, T, betas, search="sample", draws=2)
    raw = perturbation_error(model, H, X, T, betas, search="sample", draws=2, running_maximum=False)
    np.testing.assert_array_equal(kept.searched, raw.errors)
    assert (np.diff(raw.errors) < 0).any()
    np.testing.assert_array_equal(kept.errors, np.maximum.accumulate(raw.errors))
    np.testing.assert_array_equal(kept.lifted, raw.errors < kept.errors)
    assert not raw.lifted.any()


@pytest.mark.filterwarnings("ignore::odernn.InaccurateSolve")  # the ball holds rates that no step resolves
def test_a_diverged_model_counts_as_inf_with_every_kind_of_solver():
    model = make("relu")
    t = torch.linspace(0, 30, 31, dtype=F64)
    x = torch.ones(2, 31, 1, dtype=F64)
    for solver in (None, RK4, Fused(), TorchDiffEq("dopri5", rtol=1e-2, atol=1e-2, adjoint=False)):
        curve = perturbation_error(model, H, x, t, [0.0, 1e12], solver=solver, draws=1, restarts=0, steps=1)
        assert np.isfinite(curve.errors[0])
        assert curve.errors[1] == math.inf


# --- how it is computed ---


@dataclass(frozen=True)
class Counting(Solver):
    """rk4 that counts its solves."""

    calls: list
    order = 4

    def solve(self, field, path, t, h0):
        self.calls.append(h0.shape)
        return RK4.solve(field, path, t, h0)


def test_all_betas_and_draws_are_one_solve():
    calls = []
    perturbation_error(make(), H, X, T, np.geomspace(1e-3, 1, 20), search="sample", draws=30, solver=Counting(calls))
    # The public call that checks the shapes, theta itself, and everything else.
    assert [shape[:-2] for shape in calls] == [(), (1,), (600,)]


@pytest.mark.parametrize("search", ["ascent", "sample"])
def test_the_answer_does_not_depend_on_how_much_fits_in_memory(search, monkeypatch):
    model = make(recurrence="symmetric", parameterization="exp")
    whole = perturbation_error(model, H, X, T, BETAS, search=search, draws=10)
    monkeypatch.setattr(errors, "_MEMORY", 200_000)
    pieces = perturbation_error(model, H, X, T, BETAS, search=search, draws=10)
    np.testing.assert_allclose(pieces.errors, whole.errors, rtol=1e-9)


def test_fused_and_reference_solver_give_the_same_curve():
    model = make()
    fused = perturbation_error(model, H, X, T, BETAS, solver=Fused(), draws=5)
    plain = perturbation_error(model, H, X, T, BETAS, solver=RK4, draws=5)
    np.testing.assert_allclose(fused.errors, plain.errors, rtol=1e-8)


def test_the_same_seed_gives_the_same_curve():
    arguments = {"search": "sample", "draws": 3}
    first, again, other = (perturbation_error(make(), H, X, T, BETAS, **arguments, seed=seed).errors for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[1:] != other[1:]).all()


def test_the_model_and_its_gradients_are_left_as_they_were():
    model = make()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    perturbation_error(model, H, X, T, BETAS, draws=2, restarts=0, steps=2)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_has_a_curve(name):
    model = MODELS[name](1, 4, 1, "tanh", "diagonal", "exp", dtype=F64)
    curve = perturbation_error(model, H, X, T, BETAS, draws=3, restarts=1, steps=3)
    assert (np.diff(curve.errors) > 0).all()
    assert curve.model["model"] == name


def test_stacks_of_layers_and_float32_are_taken():
    model = make(num_layers=2, recurrence="symmetric", parameterization="softplus").to(torch.float32)
    curve = perturbation_error(model, H, X.float(), T.float(), BETAS, blocks="recurrent", draws=3, restarts=1, steps=3)
    assert (np.diff(curve.errors) > 0).all()
    assert len(curve.blocks) == 4


def test_targets_may_be_functionals_functions_or_values():
    model = make()
    psi = NonlinearFunctional(H, "tanh")
    curves = [
        perturbation_error(model, target, X, T, [0.1], draws=2, steps=2) for target in (psi, lambda x, t: psi(x, t), psi(X, T))
    ]
    assert curves[0].errors == curves[1].errors == curves[2].errors


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"betas": [-0.1, 0.1]}, "betas must be finite and >= 0, got -0.1"),
        ({"betas": [0.1, math.nan]}, "betas must be finite"),
        ({"betas": [0.2, 0.1]}, "betas must increase"),
        ({"betas": []}, "list of radii"),
        ({"search": "luck"}, "unknown search 'luck'"),
        ({"norm": "nuclear"}, "unknown norm"),
        ({"error": "mae"}, "unknown error 'mae'"),
        ({"blocks": "V"}, "unknown blocks 'V'"),
        ({"blocks": []}, "unknown blocks"),
        ({"blocks": ["all"]}, "give 'all'"),
        ({"blocks": None}, "unknown blocks None"),
        ({"draws": -1}, "draws is -1, expected an integer of at least 0"),
        ({"search": "sample", "draws": 0}, "draws is 0, expected an integer of at least 1"),
        ({"betas": "0.1"}, "betas is '0.1'"),
        ({"restarts": 10**30}, "restarts is 1000"),
        ({"steps": True}, "steps is True"),
        ({"seed": None}, "seed is None"),
        ({"model": ContinuousRNN}, "model is the class ContinuousRNN"),
        ({"target": ConvolutionalFunctional}, "the target is a ABCMeta"),
        ({"target": H(X[:1], T)}, r"target has shape \(1, 41, 1\), the model's output \(4, 41, 1\)"),
        ({"x": None}, "measured on inputs"),
        ({"x": X[:, :5]}, "x must be"),
        ({"x": X.float()}, "convert one"),
        ({"target": torch.zeros(4, 41, 2, dtype=F64)}, r"target has shape \(4, 41, 2\)"),
        ({"target": lambda x, t: None}, "expected a tensor"),
        ({"target": "exponential"}, "expected a functional"),
        ({"target": torch.full((4, 41, 1), math.nan, dtype=F64)}, "target holds NaN"),
        ({"target": torch.zeros(4, 41, 1, dtype=F64)}, "answers 0"),
        ({"horizon": 5.0}, "horizon is for"),
        ({"error": "kernel_l1"}, "one layer with activation 'linear'"),
        ({"model": replicate(make(), 2)}, "takes one model"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    arguments = {"model": make(), "target": H, "x": X, "t": T, "betas": BETAS} | change
    with pytest.raises(ValueError, match=message) as caught:
        perturbation_error(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_named():
    model = make()
    with torch.no_grad():
        model.layer_weights[0].U[0] = math.nan
    with pytest.raises(ValueError, match=r"weight layers\.0\.U holds 1 NaN"):
        perturbation_error(model, H, X, T, BETAS)


def test_linear_theory_needs_a_linear_target_and_model():
    linear = StateSpaceModel(1, 2, 1, "linear", "diagonal", "exp", dtype=F64)
    with pytest.raises(ValueError, match="ConvolutionalFunctional"):
        perturbation_error(linear, NonlinearFunctional(H, "tanh"), None, T, BETAS, error="kernel_l1")
    with pytest.raises(ValueError, match="needs a horizon"):
        perturbation_error(linear, H, None, None, BETAS, error="kernel_l1")
    assert perturbation_error(linear, H, None, T, [0.1], error="kernel_l1", draws=2, steps=2).horizon == 10


def test_an_unperturbed_model_that_diverges_is_reported_as_such():
    model = make("relu")
    model.set_matrix(1e10 * torch.eye(4, dtype=F64))
    with pytest.raises(DivergedSolve):
        perturbation_error(model, H, X, T, BETAS, solver=replace(RK4, check=False))


def test_frequencies_of_an_lru_are_protected_and_raw_ones_are_not():
    """The same eight slow modes of (1+t)^-1.1 as conjugate pairs, with frequencies far below their rates."""
    kernel = kernels.polynomial(1.1)
    radii = {}
    for horizon in (250.0, 1000.0):
        fit = fit_kernel(kernel, 8, horizon, "exp")
        rates, u = -fit.spectrum().real.detach(), fit.layer_weights[0].U.detach()
        for recurrence in ("complex", "lru"):
            model = ContinuousRNN(1, 16, 1, "linear", recurrence, "exp", bias=False, seed=0, dtype=torch.float64)
            model.set_matrix(DiagonalMatrix(-rates, 1e-3 * rates).to_dense())
            layer = model.layer_weights[0]
            with torch.no_grad():
                model.c.zero_()[:, ::2] = fit.c
                layer.U.zero_()[::2] = u / layer.recurrence.scale_input(torch.ones_like(layer.U))[::2]
            search = {"error": "kernel_l1", "horizon": horizon, "blocks": "recurrent", "draws": 4, "restarts": 1}
            curve = perturbation_error(model, kernel, None, None, [0.01, 0.03, 0.1], **search)
            assert curve.relative_initial < 1e-3
            radii[recurrence, horizon] = curve.tolerance_radius()
    # A mode is lost once its frequency has moved by about its rate, which falls with the horizon.
    assert radii["complex", 1000.0] < 0.7 * radii["complex", 250.0] < 0.05
    assert radii["lru", 1000.0] == radii["lru", 250.0] == 0.1  # and more: E(0.1) is 0.09 |H|


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_error_of_the_model_itself_is_not_that_of_the_solver(dtype):
    t = torch.linspace(0, 30, 31, dtype=F64)  # rk4 bears steps of 1, and is off by 1e-3
    x = inputs.random_fourier(t, 4, seed=0, length_scales=(3.0, 30.0))
    model = ContinuousRNN(1, 2, 1, "tanh", "diagonal", bias=False, dtype=F64)
    model.set_matrix(-torch.eye(2, dtype=F64))
    with torch.no_grad():
        model.layer_weights[0].U.fill_(0.1)
        y = model(x, t, solver=Adaptive(rtol=1e-9, atol=1e-12))
    model, y, x, t = model.to(dtype), y.to(dtype), x.to(dtype), t.to(dtype)
    curve = perturbation_error(model, y, x, t, [0.0, 1e-7, 1e-2], error="relative_l2", draws=2, restarts=0, steps=1)
    assert curve.relative_initial < 1e-6
    assert curve.relative[1] < 2e-4
    assert curve.relative[2] > 5e-3
    coarse = perturbation_error(model, y, x, t, [0.0], error="relative_l2", solver=Fused("rk4", check=False))
    assert coarse.relative_initial > 5e-4
