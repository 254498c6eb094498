"""A recurrence of the user's own, the one in the docstring of `odernn.recurrences`, through everything that asks what is known of
its weights; each number against the dense model with the same W."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pytest
import torch
from problems import F64, perturb_bias

from analysis.memory import memory_function
from analysis.perturbation import perturbation_error
from analysis.stability import gradient_over_weight, stability_report
from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel, recurrences
from odernn.ensembles import member, stack
from odernn.experiment import Experiment, ExperimentConfig, load_run
from odernn.losses import mse
from odernn.runs import RunDirectory
from odernn.solvers import TorchDiffEq
from odernn.training import Data, Trainer, TrainingConfig
from odernn.warm_start import widen
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 10, 41, dtype=F64)
X = inputs.random_fourier(T, 4, seed=0, length_scales=(0.5, 10.0))
H = ConvolutionalFunctional(kernels.exponential())
RK4 = TorchDiffEq("rk4", adjoint=False, check=False)


@pytest.fixture(autouse=True)
def rotation(monkeypatch):
    """The class of the docstring, known within one test."""
    monkeypatch.setattr(recurrences, "RECURRENCES", dict(recurrences.RECURRENCES))
    _, start, example = recurrences.__doc__.partition("    import torch\n")
    namespace = {"__name__": "rotation"}
    exec(compile(textwrap.dedent(start + example), "rotation.py", "exec"), namespace)
    return namespace["Rotation"]


def make(m=4, parameterization="exp", cls=ContinuousRNN, **options):
    return perturb_bias(cls(1, m, 1, "tanh", "rotation", parameterization, dtype=F64, **{"seed": 0, **options}))


def dense(model):
    """The model with the same effective weights and a dense W."""
    other = ("model", "recurrence", "parameterization")
    same = type(model)(**{name: value for name, value in model.config().items() if name not in other}, dtype=F64)
    with torch.no_grad():
        for index, layer in enumerate(model.field().layers):
            same.set_matrix(layer.W.to_dense(), layer=index)
            same.layer_weights[index].U.copy_(layer.U)
            same.layer_weights[index].b.copy_(layer.b)
        same.c.copy_(model.c)
    return same


def loss_of(model, decay=0.0):
    size = sum(layer.U.square().sum() for layer in model.layer_weights) + model.c.square().sum()
    return float((mse(model(X, T, solver=RK4), H(X, T)) + decay * size).detach())


def trained(model, **settings):
    y = H(X, T)
    trainer = Trainer(model, Data(T, X, y, X, y), TrainingConfig(epochs=3, iterations=5, **settings), solver=RK4)
    trainer.run(progress=False)
    return trainer


def test_it_trains_with_weight_decay():
    model = make()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    started = loss_of(dense(model), decay=1e-2)
    trainer = trained(model, weight_decay=1e-2)
    assert trainer.history[-1]["loss"] == pytest.approx(loss_of(dense(model), decay=1e-2), rel=1e-9)
    assert trainer.history[-1]["loss"] < 0.9 * started
    assert all((weight != before[name]).any() for name, weight in model.state_dict().items())
    assert loss_of(dense(model), decay=1e-2) - loss_of(dense(model)) < started - loss_of(dense(make()))


def test_its_gradients_are_those_of_the_dense_model():
    model = make(m=6, parameterization="lru")
    reference = dense(model)
    for one in (model, reference):
        mse(one(X, T, solver=RK4), H(X, T)).backward()
    ours, theirs = model.layer_weights[0], reference.layer_weights[0]
    torch.testing.assert_close(ours.b.grad, theirs.b.grad)
    W, weights = ours.recurrence.state_matrix().to_dense(), (ours.recurrence.w, ours.recurrence.theta)
    # lru scales the input by f(w) as well: there w has a second way to act.
    U = ours.recurrence.scale_input(ours.U)
    expected = torch.autograd.grad((W * theirs.recurrence.W.grad).sum() + (U * theirs.U.grad).sum(), weights)
    for weight, gradient in zip(weights, expected):
        torch.testing.assert_close(weight.grad, gradient)
    ratios = gradient_over_weight(model)
    assert set(ratios) == {"layers.0.recurrence.w", "layers.0.recurrence.theta"}


@pytest.mark.parametrize("num_layers", [1, 2])
def test_it_widens_with_its_function_kept(num_layers):
    narrow, wide = make(num_layers=num_layers), make(m=10, num_layers=num_layers, seed=7)
    angles = wide.layer_weights[0].recurrence.theta.detach().clone()
    widen(narrow, wide)
    with torch.no_grad():
        torch.testing.assert_close(wide(X, T, solver=RK4), dense(narrow)(X, T, solver=RK4), rtol=1e-10, atol=1e-12)
    assert torch.equal(wide.layer_weights[0].recurrence.theta[:2], narrow.layer_weights[0].recurrence.theta)
    assert torch.equal(wide.layer_weights[0].recurrence.theta[2:], angles[2:])


def test_its_memory_is_that_of_the_dense_model():
    model = make(cls=StateSpaceModel)
    ours, theirs = (memory_function(one, T, solver=RK4) for one in (model, dense(model)))
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-8, atol=1e-12)
    assert ours.values.max() > 0


def test_perturbations_of_its_input_bias_and_readout_are_those_of_the_dense_model():
    model = make()
    curves = [
        perturbation_error(one, H, X, T, [0.0, 0.05, 0.3], blocks=["U", "b", "c"], solver=RK4, draws=4, steps=4)
        for one in (model, dense(model))
    ]
    np.testing.assert_allclose(curves[0].errors, curves[1].errors, rtol=1e-7)
    assert curves[0].evaluations == curves[1].evaluations


def test_the_worst_perturbation_of_its_recurrent_weights_is_the_worst_of_a_fine_grid():
    # One pair: W has two raw weights, and their ball is a square.
    model, beta = make(m=2), 0.3
    curve = perturbation_error(model, H, X, T, [beta], blocks="recurrent", solver=RK4)
    assert curve.blocks == ("layers.0.recurrence.w", "layers.0.recurrence.theta")
    edge = torch.linspace(-beta, beta, 41, dtype=F64)
    w, theta = (part.flatten() for part in torch.meshgrid(edge, edge, indexing="ij"))
    own = model.layer_weights[0].recurrence
    f, angle = -(own.w.detach() + w).exp(), own.theta.detach() + theta
    cos, sin = f * angle.cos(), f * angle.sin()
    blocks = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    many = stack([dense(model)] * len(blocks))
    many.set_matrix(blocks)
    with torch.no_grad():
        h0 = model.rest_state()
        y = many(X, T, h0.expand(len(blocks), 4, -1), solver=RK4)
    errors = (y - H(X, T)).square().mean((-3, -2, -1))
    assert curve.errors[0] == pytest.approx(float(errors.max()), rel=1e-3)
    worst = member(curve.worst_case, 0).layer_weights[0].recurrence
    for name, weight in worst.named_parameters():
        assert (weight - own.get_parameter(name)).abs().max() <= beta * (1 + 1e-12)
    with torch.no_grad():
        y = dense(member(curve.worst_case, 0))(X, T, h0.expand(4, -1), solver=RK4)
    assert float((y - H(X, T)).square().mean()) == pytest.approx(curve.errors[0], rel=1e-9)


@pytest.mark.parametrize("norm", ["spectral", "max"])
def test_every_block_can_be_perturbed_and_the_default_solver_found(norm):
    curve = perturbation_error(make(), H, X, T, [0.0, 0.1, 0.3], norm=norm, draws=3, steps=3)
    assert (np.diff(curve.errors) > 0).all()
    assert len(curve.blocks) == 5


def test_its_stability_report_is_that_of_the_dense_model():
    model = make(m=6)
    ours, theirs = stability_report(model), stability_report(dense(model))
    for name in ("margin", "abscissa", "complex_radius"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-7)
    own = model.layer_weights[0].recurrence
    assert ours.margin == pytest.approx(float((own.w.detach().exp() * own.theta.detach().cos()).min()))
    # Its angles can leave the stable region whatever f is.
    assert ours.structured is None
    with torch.no_grad():
        model.layer_weights[0].recurrence.theta.fill_(0.6 * math.pi)
    assert stability_report(model).margin < 0


@pytest.mark.parametrize("ensemble", [(), (3,)])
def test_its_matrix_can_be_set(ensemble):
    model, other = make(m=6, ensemble=ensemble), make(m=6, ensemble=ensemble, seed=8)
    W = model.field().layers[0].W.to_dense().detach()
    other.set_matrix(W)
    torch.testing.assert_close(other.field().layers[0].W.to_dense().detach(), W)


def test_its_runs_are_saved_and_loaded_by_name(tmp_path):
    config = ExperimentConfig(
        recurrence="rotation", parameterization="exp", hidden_size=4, horizon=2.0, points=11, train_size=4, validation_size=4,
        solver="rk4", training=TrainingConfig(epochs=1, iterations=2),
    )  # fmt: skip
    experiment = Experiment(config)
    experiment.train(RunDirectory.create(tmp_path / "run", experiment.record()), progress=False)
    loaded = load_run(tmp_path / "run")
    for name, value in experiment.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def test_a_name_that_is_not_known_lists_it_among_the_choices():
    with pytest.raises(ValueError, match=r"expected one of dense, .*complex, lru, rotation"):
        ContinuousRNN(1, 4, 1, recurrence="spiral")
    assert DiscreteSSM(1, 4, 1, "tanh", "rotation", "exp").config()["recurrence"] == "rotation"
