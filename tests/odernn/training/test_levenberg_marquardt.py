from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from problems import F64, central_difference, combinations, perturb_bias

from odernn import Adaptive, ContinuousRNN, DiscreteRNN, DiscreteSSM, Fused, StateSpaceModel, TorchDiffEq
from odernn.ensembles import member, stack
from odernn.losses import LOSSES, stability_penalty
from odernn.solvers import DivergedSolve
from odernn.training import Data, LeastSquares, Trainer, TrainingConfig, levenberg_marquardt, train
from odernn.training.levenberg_marquardt import LevenbergMarquardt
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 4, 21, dtype=F64)
RK4 = TorchDiffEq("rk4", adjoint=False, check=False)
FUSED = Fused(check=False)


def make_data(kernel=None, size=6, outputs=1) -> Data:
    H = ConvolutionalFunctional(kernel or kernels.exponential())
    pairs = (
        (x, torch.cat([H(x, T) * (k + 1) + k for k in range(outputs)], -1))
        for x in (inputs.random_fourier(T, size, seed=s) for s in (1, 2))
    )
    (x, y), (x_validation, y_validation) = pairs
    return Data(T, x, y, x_validation, y_validation)


DATA = make_data()


def make_problem(model, solver, data=DATA, loss="mse", **penalties) -> LeastSquares:
    settings = {"weight_decay": 0.0, "penalty": None} | penalties
    return LeastSquares(model, data, LOSSES[loss], solver=solver, interpolation="linear", **settings)


MODELS = {
    "dense tanh": (ContinuousRNN(1, 3, 1, "tanh", "dense", seed=0, dtype=F64), FUSED),
    "symmetric softplus, adaptive": (
        ContinuousRNN(1, 3, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64),
        Adaptive(check=False),
    ),
    "pairs, two outputs": (StateSpaceModel(1, 4, 2, "tanh", "complex", "exp", seed=0, dtype=F64), None),
    "discrete": (DiscreteSSM(1, 4, 1, "tanh", "complex", "lru", seed=0, dtype=F64), None),
    "Euler": (DiscreteRNN(1, 3, 1, "sigmoid", "dense", seed=0, dtype=F64), None),
    "stack": (ContinuousRNN(1, 2, 1, "tanh", "dense", num_layers=2, seed=0, dtype=F64), RK4),
    "ensemble": (ContinuousRNN(1, 2, 1, "tanh", "free_basis", "inverse", ensemble=(2,), seed=0, dtype=F64), FUSED),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_jacobian_agrees_with_products_by_the_adjoint_and_the_gradient_with_differences(name):
    model, solver = MODELS[name]
    perturb_bias(model, 0.1)
    problem = make_problem(model, solver, make_data(outputs=model.output_size), loss="time_weighted", weight_decay=1e-3)
    point = problem.evaluate()
    problem.move(problem.theta, point.c)
    J = problem.jacobian(point.basis)
    forwards, backwards = problem.products(point.basis)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.theta.shape, generator=generator, dtype=F64)
    Jv = forwards(v)
    size = float(J.norm())
    torch.testing.assert_close((J @ v.unsqueeze(-1)).reshape(Jv.shape), Jv, rtol=1e-4, atol=1e-5 * size)
    u = torch.randn(Jv.shape, generator=generator, dtype=F64)
    torch.testing.assert_close((J.mT @ u.flatten(1).unsqueeze(-1)).squeeze(-1), backwards(u), rtol=1e-4, atol=2e-5 * size)
    # The gradient of the objective with the best c for every theta is that at fixed c.
    loose = isinstance(solver, Adaptive)  # its steps jump
    differences = [central_difference(lambda: problem.evaluate().cost.sum(), weight, 1e-5) for weight in problem.weights]
    expected = torch.cat([difference.reshape(problem.members, -1) for difference in differences], -1)
    torch.testing.assert_close(problem.gradient(), expected, rtol=1e-3 if loose else 1e-5, atol=1e-4 if loose else 1e-8)


def test_the_objective_is_that_of_the_trainer_with_the_best_readout():
    model = ContinuousRNN(1, 3, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64)
    config = TrainingConfig("lbfgs", weight_decay=1e-3, margin=1.0, margin_weight=0.5, loss="time_weighted")
    trainer = Trainer(model, DATA, config, solver=FUSED)
    penalty = lambda: 0.5 * stability_penalty(model, 1.0)  # noqa: E731
    problem = make_problem(model, FUSED, loss="time_weighted", weight_decay=1e-3, penalty=penalty)
    point = problem.evaluate()
    problem.move(problem.theta, point.c)
    loss = trainer._objective(DATA.training)
    assert float(point.cost) == pytest.approx(loss.item(), rel=1e-10)
    (slope,) = torch.autograd.grad(loss, model.c)
    assert slope.norm() < 1e-10 * point.c.norm()
    assert penalty() > 0


@pytest.mark.slow
def test_products_with_the_jacobian_lead_where_the_jacobian_does(monkeypatch):
    losses = []
    for entries in (levenberg_marquardt.DENSE_ENTRIES, 0):
        monkeypatch.setattr(levenberg_marquardt, "DENSE_ENTRIES", entries)
        model = ContinuousRNN(1, 4, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64)
        trainer = Trainer(model, DATA, TrainingConfig("lm", epochs=8), solver=FUSED)
        trainer.run(progress=False)
        losses.append(trainer.history[-1]["loss"])
    assert losses[1] < 30 * losses[0] < 1e-4


def test_members_of_an_ensemble_train_as_they_would_alone():
    models = [ContinuousRNN(1, 3, 1, "tanh", "dense", seed=seed, dtype=F64) for seed in (0, 1)]
    together, config = stack(models), TrainingConfig("lm", epochs=3, weight_decay=1e-3)
    ensemble = Trainer(together, DATA, config, solver=FUSED)
    ensemble.run(progress=False)
    losses = []
    for index, model in enumerate(models):
        trainer = Trainer(model, DATA, config, solver=FUSED)
        trainer.run(progress=False)
        losses.append(trainer.history[-1]["loss"])
        alone, among = (
            make_problem(one, FUSED, weight_decay=1e-3).evaluate().cost.item() for one in (model, member(together, index))
        )
        assert among == pytest.approx(alone, rel=1e-4)
    assert ensemble.history[-1]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-4)


@pytest.mark.slow
def test_every_model_trains():
    data = Data(*(x[:6] if x.ndim == 1 else x[:4, :6] for x in (DATA.t, DATA.x, DATA.y, DATA.x_validation, DATA.y_validation)))
    # Every fourth: each recurrence, parameterisation and activation of both kinds is among them.
    for cls, recurrence, parameterization, activation in list(combinations((ContinuousRNN, DiscreteSSM)))[::4]:
        model = cls(1, 2, 1, activation, recurrence, parameterization, seed=0, dtype=F64)
        trainer = Trainer(model, data, TrainingConfig("lm", epochs=3), solver=None if model.is_map else FUSED)
        before = make_problem(model, trainer.solver, data).evaluate().cost.item()
        trainer.run(progress=False)
        assert trainer.history[-1]["loss"] <= before, (cls, recurrence, parameterization, activation)


def test_a_stall_an_optimum_and_the_end_of_steps_are_told_apart():
    diagonal = StateSpaceModel(1, 1, 1, "linear", "diagonal", "exp", seed=0, dtype=F64)
    for settings, reason in (
        ({"epochs": 30}, "optimum"),
        ({"epochs": 1}, "out of steps"),
        ({"optimizer": "adam", "lr": 3.0, "epochs": 50, "patience": 2}, "stalled"),
    ):
        trainer = train(
            diagonal, make_data(kernels.polynomial(1.1)), TrainingConfig(**{"optimizer": "lm", **settings}), progress=False
        )
        assert trainer.stopped == reason
        diagonal = StateSpaceModel(1, 1, 1, "linear", "diagonal", "exp", seed=0, dtype=F64)
    assert trainer.epoch < 50


def test_a_start_that_diverges_is_an_error_unless_other_members_do_not():
    good, bad = (ContinuousRNN(1, 2, 1, "linear", "dense", seed=0, dtype=F64) for _ in range(2))
    bad.set_matrix(1e30 * torch.eye(2))
    with pytest.raises(DivergedSolve, match="not finite where training begins"):
        Trainer(bad, DATA, TrainingConfig("lm", epochs=1), solver=FUSED).run(progress=False)
    trainer = Trainer(stack([good, bad]), DATA, TrainingConfig("lm", epochs=2), solver=FUSED)
    optimizer = trainer.optimizer
    assert isinstance(optimizer, LevenbergMarquardt)
    problem = make_problem(trainer.model, FUSED)
    point = optimizer.begin(problem)
    assert optimizer.stops == ("", "diverged")
    after = optimizer.advance(problem, point)
    assert after.cost[0] < point.cost[0]
    assert after.cost[1] == math.inf


def test_units_without_influence_stay_where_they_are():
    model = ContinuousRNN(1, 3, 1, "relu", "diagonal", seed=0, dtype=F64)
    with torch.no_grad():
        model.layers[0].b[1] = -100.0  # never active
    w = model.layers[0].recurrence.w.detach().clone()
    Trainer(model, DATA, TrainingConfig("lm", epochs=4), solver=FUSED).run(progress=False)
    assert model.layers[0].recurrence.w[1] == w[1]
    assert model.layers[0].recurrence.w[0] != w[0]


def test_auto_is_levenberg_marquardt_where_it_fits():
    dense = ContinuousRNN(1, 4, 1, dtype=F64)
    single = Data(DATA.t, *(x.float() for x in (DATA.x, DATA.y, DATA.x_validation, DATA.y_validation)))
    wide = ContinuousRNN(1, 300, 1, "tanh", "dense", seed=0, dtype=F64)
    for model, data, settings, solver, expected in (
        (dense, DATA, {}, FUSED, "lm"),
        (dense, DATA, {}, None, "lm"),
        (DiscreteSSM(1, 4, 1, dtype=F64), DATA, {}, None, "lm"),
        (dense, DATA, {}, RK4, "lbfgs"),
        (dense, DATA, {"lr": 0.5}, FUSED, "lbfgs"),
        (dense, DATA, {"optimizer": "adam"}, FUSED, "adam"),
        (wide, DATA, {}, FUSED, "lbfgs"),
        (ContinuousRNN(1, 4, 1, dtype=torch.float32), single, {}, FUSED, "lbfgs"),
    ):
        assert Trainer(model, data, TrainingConfig(**settings), solver=solver).config.optimizer == expected
    with pytest.raises(ValueError, match=r"optimizer 'lm' takes differences of states in float64, got torch.float32"):
        Trainer(ContinuousRNN(1, 4, 1, dtype=torch.float32), single, TrainingConfig("lm"), solver=FUSED)


def test_a_frozen_readout_stays():
    model = ContinuousRNN(1, 3, 1, "tanh", "dense", seed=0, dtype=F64)
    model.c.requires_grad_(False)
    c = model.c.clone()
    trainer = Trainer(model, DATA, TrainingConfig("lm", epochs=5), solver=FUSED)
    trainer.run(progress=False)
    assert torch.equal(model.c, c)
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]


def test_the_same_data_in_another_order_of_outputs_trains_alike():
    data = make_data(outputs=2)
    flipped = replace(data, y=data.y.flip(-1), y_validation=data.y_validation.flip(-1))
    losses = []
    for one in (data, flipped):
        model = ContinuousRNN(1, 3, 2, "tanh", "dense", seed=0, dtype=F64)
        trainer = Trainer(model, one, TrainingConfig("lm", epochs=3), solver=FUSED)
        trainer.run(progress=False)
        losses.append(trainer.history[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
