from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from problems import F64, combinations

from odernn import ContinuousRNN, DiscreteSSM, DivergedSolve, StateSpaceModel, TorchDiffEq
from odernn.training import Data, Trainer, TrainingConfig, train
from targets import KERNELS, ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 4, 21, dtype=F64)


def make_data(kernel=None, size=16, channels=1) -> Data:
    H = ConvolutionalFunctional(kernel or kernels.exponential())
    x, x_validation = (inputs.random_fourier(T, size, channels=channels, seed=seed) for seed in (1, 2))
    return Data(T, x, H(x, T), x_validation, H(x_validation, T))


DATA = make_data()


def make_trainer(data=DATA, **settings) -> Trainer:
    model = ContinuousRNN(1, 4, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64)
    return Trainer(model, data, TrainingConfig(**settings), solver=TorchDiffEq("rk4", adjoint=False, check=False))


OPTIMISERS = [
    {"optimizer": "lbfgs", "epochs": 6},
    {"optimizer": "lm", "epochs": 12},
    {"optimizer": "adam", "epochs": 40, "batch_size": 4, "lr": 0.02},
    {"optimizer": "adamw", "epochs": 40, "batch_size": 4, "lr": 0.02, "weight_decay": 1e-4, "gradient_clip": 1.0},
    {"optimizer": "adam", "epochs": 40, "batch_size": 16, "lr": 0.03, "schedule": "cosine", "loss": "time_weighted"},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", OPTIMISERS)
def test_training_learns(settings):
    trainer = make_trainer(**settings)
    before = trainer.validation_error()
    trainer.run(progress=False)
    assert trainer.epoch == settings["epochs"] or trainer.stopped == "optimum"
    assert trainer.validation_error() < {"lbfgs": 0.05, "lm": 0.005}.get(settings["optimizer"], 0.4) * before


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*OPTIMISERS, {"optimizer": "adam", "epochs": 6, "schedule": "plateau", "lr": 0.5}])
def test_a_restored_trainer_ends_in_the_same_weights_bit_for_bit(settings):
    settings = settings | {"epochs": 6}
    straight, first, second = (make_trainer(**settings) for _ in range(3))
    straight.run(progress=False)

    def stop(trainer, improved):
        if trainer.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop, progress=False)
    second.load_state_dict(first.state_dict())
    second.run(progress=False)
    for a, b in zip(straight.model.parameters(), second.model.parameters()):
        assert torch.equal(a, b)
    without_time = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history] for trainer in (straight, second)
    ]
    assert without_time[0] == without_time[1]


def test_train_leaves_the_model_with_the_weights_of_its_best_epoch():
    model = ContinuousRNN(1, 4, 1, "tanh", "dense", seed=0, dtype=F64)
    trainer = train(model, DATA, TrainingConfig(optimizer="adam", epochs=6, lr=0.2), progress=False)
    errors = [row["validation_relative_l2"] for row in trainer.history]
    assert len(errors) == 6
    assert trainer.best_error == trainer.validation_error() == min(errors) < errors[-1]
    assert trainer.best_epoch == 1 + errors.index(min(errors))


@pytest.mark.slow
def test_train_keeps_initial_weights_that_no_epoch_betters():
    model = ContinuousRNN(1, 4, 1, "tanh", "dense", seed=0, dtype=F64)
    train(model, DATA, TrainingConfig(epochs=3), progress=False)
    good = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = train(model, DATA, TrainingConfig(optimizer="adam", epochs=2, lr=10.0), progress=False)
    assert trainer.best_epoch == 0
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())


def test_the_plateau_schedule_lowers_the_learning_rate_and_early_stopping_stops():
    trainer = make_trainer(optimizer="adam", epochs=200, lr=3.0, schedule="plateau", patience=30)
    trainer.run(progress=False)
    assert trainer.history[-1]["learning_rate"] < 3.0
    assert trainer.epoch < 200
    assert trainer.epoch - trainer.best_epoch == 30


def test_gradients_are_clipped():
    trainer = make_trainer(optimizer="adam", epochs=1, gradient_clip=1e-3)
    trainer.run(progress=False)
    norms = [parameter.grad.norm() for parameter in trainer.model.parameters()]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_lbfgs_forgets_its_curvature_after_an_epoch_without_progress():
    trainer = make_trainer(make_data(), optimizer="lbfgs", epochs=2, iterations=3)
    trainer.run(progress=False)
    assert trainer.optimizer.state
    with torch.no_grad():  # nothing is left to learn
        trainer.data.y.copy_(trainer.respond(trainer.data.training).y)
    trainer.config = replace(trainer.config, epochs=3)
    trainer.run(progress=False)
    assert not trainer.optimizer.state


@pytest.mark.slow
def test_the_margin_penalty_keeps_the_spectrum_away_from_zero():
    free, kept = (
        make_trainer(make_data(kernels.polynomial(1.1)), epochs=8, margin=0.08 * w, margin_weight=w) for w in (0.0, 10.0)
    )
    for trainer in (free, kept):
        trainer.run(progress=False)
    assert free.model.stability_margin() < 0.7
    assert kept.model.stability_margin() > 0.75


def test_weight_decay_shrinks_the_input_and_readout_weights():
    free, decayed = (make_trainer(epochs=5, weight_decay=decay) for decay in (0.0, 1e-2))
    for trainer in (free, decayed):
        trainer.run(progress=False)
    size = [
        sum(p.square().sum() for name, p in trainer.model.named_parameters() if name[-1] in "Uc") for trainer in (free, decayed)
    ]
    assert size[1] < 0.9 * size[0]


@pytest.mark.slow
def test_everything_that_constructs_trains_on_every_kernel_and_solver():
    """All structures, with kernels and solvers dealt out in turn; the loss falls or at least the weights move and stay finite."""
    solvers = [TorchDiffEq(method, 1e-4, 1e-6, adjoint, check=False) for method in ("rk4", "dopri5") for adjoint in (True, False)]
    data = {name: short(make_data(factory(), size=2)) for name, factory in KERNELS.items()}
    names = list(data)
    for index, (cls, recurrence, parameterization, activation) in enumerate(combinations()):
        model = cls(1, 2, 1, activation, recurrence, parameterization, dtype=F64)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        config = TrainingConfig(optimizer="adam", epochs=2)
        trainer = Trainer(model, data[names[index % len(names)]], config, solver=solvers[(index // 5) % len(solvers)])
        trainer.run(progress=False)
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters())]
        assert sum(moved) >= len(moved) - 1, (recurrence, parameterization, activation)  # U may be dead under relu


def short(data: Data) -> Data:
    return Data(*(x[:3] if x.ndim == 1 else x[:, :3] for x in (data.t, data.x, data.y, data.x_validation, data.y_validation)))


def test_vector_inputs_and_discrete_models_train():
    data = make_data(kernels.stack([kernels.exponential(), kernels.polynomial()]), channels=2)
    for model in (
        StateSpaceModel(2, 4, 1, "linear", "diagonal", "exp", dtype=F64),
        DiscreteSSM(2, 4, 1, "tanh", "complex", "lru", dtype=F64),
    ):
        trainer = Trainer(model, data, TrainingConfig(epochs=5, iterations=10))
        before = trainer.validation_error()
        trainer.run(progress=False)
        assert trainer.validation_error() < 0.3 * before


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "lm"])
@pytest.mark.parametrize("adjoint", [True, False])
def test_a_solve_that_diverges_in_training_stops_it_after_the_last_good_epoch(optimizer, adjoint):
    model = ContinuousRNN(1, 4, 1, "linear", "dense", dtype=F64)
    solver = TorchDiffEq("rk4", adjoint=adjoint, check=False)
    trainer = Trainer(model, DATA, TrainingConfig(optimizer=optimizer, epochs=20), solver=solver)

    def blow_up(trainer, improved):
        if trainer.epoch == 3:
            model.set_matrix(1e20 * torch.eye(4))

    with pytest.raises(DivergedSolve, match=r"diverged|not finite"):
        trainer.run(blow_up, progress=False)
    assert trainer.epoch == 3
    assert trainer.stopped == "diverged"


def test_lbfgs_survives_a_diverging_trial_point(monkeypatch):
    trainer = make_trainer(optimizer="lbfgs", epochs=3)
    before, calls, objective = trainer.validation_error(), [], trainer._objective

    def diverge_now_and_then(samples):
        calls.append(None)
        if len(calls) in (3, 4, 7):  # the first call of an epoch is no trial point
            raise DivergedSolve("too far")
        return objective(samples)

    monkeypatch.setattr(trainer, "_objective", diverge_now_and_then)
    trainer.run(progress=False)
    assert trainer.validation_error() < 0.5 * before


@pytest.mark.parametrize("huge", [{2: 1e250}, {9: 1e160}, {2: 1e250, 3: 1e160, 4: 1e18}], ids=str)
def test_lbfgs_survives_trial_points_with_losses_that_are_huge_and_finite(monkeypatch, huge):
    # As e^{wT} makes them of a step of w on a long horizon.
    trainer = make_trainer(optimizer="lbfgs", epochs=3, iterations=15)
    before, calls, objective = trainer.validation_error(), [], trainer._objective

    def leap(samples):
        calls.append(None)
        return objective(samples) * huge.get(len(calls), 1.0)

    monkeypatch.setattr(trainer, "_objective", leap)
    trainer.run(progress=False)
    assert trainer.validation_error() < 0.5 * before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd', expected one of auto, lm, lbfgs, adam, adamw"),
        ({"schedule": "step"}, "expected one of none, plateau, cosine"),
        ({"loss": "huber"}, "expected one of mse"),
        ({"epochs": -1}, "epochs is -1, expected an integer of at least 0"),
        ({"optimizer": "adam", "batch_size": 0}, "batch_size is 0, expected an integer of at least 1"),
        ({"lr": -1.0}, "lr is -1.0, expected a finite number > 0"),
        ({"lr": float("nan")}, "lr is nan, expected a finite number > 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected a finite number >= 0"),
        ({"batch_size": 4}, "leave it out"),
        ({"gradient_clip": 1.0}, "leave it out"),
        ({"optimizer": "lm", "lr": 0.1}, "lr and schedule have no effect with lm"),
        ({"optimizer": "lm", "schedule": "cosine"}, "lr and schedule have no effect with lm"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_bad_data_is_named():
    with pytest.raises(ValueError, match="x, y and t disagree"):
        replace(DATA, y=DATA.y[:, :-1])
    with pytest.raises(ValueError, match="all targets y of sequence 0 are missing"):
        replace(DATA, y=DATA.y * torch.nan)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("y_validation", lambda data: torch.cat([data.y_validation] * 3, -1)),
        ("x", lambda data: data.x[:0]),
        ("x", lambda data: data.x[0]),
        ("y", lambda data: data.y.float()),
        ("y", lambda data: data.y.long()),
        ("x", lambda data: data.x.tolist()),
        ("x_validation", lambda data: None),
        ("t", lambda data: data.t.flip(0)),
        ("t", lambda data: data.t.unsqueeze(0)),
    ],
)
def test_data_of_another_shape_or_kind_are_named(name, change):
    with pytest.raises(ValueError, match=f"^{name} (is|has) "):
        replace(DATA, **{name: change(DATA)})


def test_targets_of_more_channels_than_the_model_has_outputs_are_refused():
    data = replace(DATA, y=torch.cat([DATA.y] * 3, -1), y_validation=torch.cat([DATA.y_validation] * 3, -1))
    with pytest.raises(ValueError, match="target"):
        Trainer(ContinuousRNN(1, 2, 1, dtype=F64), data, TrainingConfig(epochs=1)).run(progress=False)


def test_a_cosine_run_with_more_epochs_follows_the_longer_cosine():
    short_run, longer = (make_trainer(optimizer="adam", epochs=epochs, schedule="cosine") for epochs in (4, 8))
    short_run.run(progress=False)
    longer.load_state_dict(short_run.state_dict())
    longer.run(progress=False)
    rates = [row["learning_rate"] for row in longer.history[4:]]
    assert rates == sorted(rates, reverse=True)
