from __future__ import annotations

import json

import pytest
import torch
from problems import F64

from odernn import (
    ContinuousRNN,
    Data,
    Exact,
    InputMoments,
    StateSpaceModel,
    Trainer,
    TrainingConfig,
    generalization_measure,
    load_run,
    stack,
    train,
)
from odernn.losses import mse
from odernn.seals import checksum
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 2, 11, dtype=F64)
X = inputs.ornstein_uhlenbeck(T, batch=8, seed=0)
DATA = Data.split(T, X, ConvolutionalFunctional(kernels.polynomial(exponent=1.5))(X, T))
MOMENTS = InputMoments.measured(T, DATA.x)


def model(seed=0, **options):
    return StateSpaceModel(1, 4, 1, "linear", "complex", "exp", seed=seed, dtype=F64, **options)


def trained(own=None, **settings) -> Trainer:
    config = TrainingConfig(**{"optimizer": "lbfgs", "epochs": 2, "iterations": 5, **settings})
    trainer = Trainer(own or model(), DATA, config, solver=Exact())
    trainer.run(progress=False)
    return trainer


def test_the_loss_is_the_mean_square_and_lambda_tau():
    trainer = trained(regularizer="tau", regularizer_weight=0.3)
    with torch.no_grad():
        error = mse(trainer.model(DATA.x, T), DATA.y)
        expected = error + 0.3 * generalization_measure(trainer.model, MOMENTS)
    assert trainer.history[-1]["loss"] == pytest.approx(expected.item(), rel=1e-9)


def test_the_default_weight_is_stated():
    one, other = (trained(regularizer="tau", **given) for given in ({}, {"regularizer_weight": 0.01}))
    assert torch.equal(one.model.c, other.model.c)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "lbfgs"},
        {"optimizer": "auto"},
        {"optimizer": "adam", "epochs": 30, "lr": 0.02},
        {"optimizer": "adamw", "epochs": 30, "lr": 0.02, "weight_decay": 1e-4},
        {"optimizer": "adam", "epochs": 15, "lr": 0.02, "chunk": 4, "batch_size": 3},
    ],
    ids=str,
)
def test_training_leaves_a_smaller_tau(settings):
    free, regularised = (trained(**settings, **given) for given in ({}, {"regularizer": "tau", "regularizer_weight": 0.3}))
    taus = [float(generalization_measure(one.model, MOMENTS).detach()) for one in (free, regularised)]
    assert taus[1] < 0.8 * taus[0]
    assert regularised.config.optimizer != "lm"


def test_members_of_an_ensemble_are_regularised_each():
    together = stack([model(seed) for seed in range(2)])
    trainer = trained(together, regularizer="tau", regularizer_weight=0.3)
    with torch.no_grad():
        expected = mse(together(DATA.x, T), DATA.y) + 0.3 * generalization_measure(together, MOMENTS)
    assert trainer.history[-1]["loss"] == pytest.approx(expected.mean().item(), rel=1e-9)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path, optimizer):
    config = TrainingConfig(optimizer, epochs=2, regularizer="tau", regularizer_weight=0.1)
    train(model(), DATA, config, out=tmp_path / "run", progress=False)
    going = Trainer.resume(tmp_path / "run", DATA, epochs=4)
    going.run(progress=False)
    going.save(tmp_path / "run")
    four = TrainingConfig(optimizer, epochs=4, regularizer="tau", regularizer_weight=0.1)
    train(model(), DATA, four, out=tmp_path / "straight", progress=False)
    assert (tmp_path / "run" / "best.pt").read_bytes() == (tmp_path / "straight" / "best.pt").read_bytes()
    other = TrainingConfig(optimizer, epochs=5, regularizer="tau", regularizer_weight=0.2)
    with pytest.raises(ValueError, match=r"regularizer_weight is 0\.1 there, 0\.2 here"):
        train(model(), DATA, other, out=tmp_path / "run", resume=True, progress=False)


def test_trainings_of_earlier_versions_load_and_go_on(tmp_path):
    config = TrainingConfig("lbfgs", epochs=2, iterations=2)
    train(model(), DATA, config, out=tmp_path / "run", progress=False)
    file = tmp_path / "run" / "config.json"
    content = json.loads(file.read_text())
    content.pop("sha256")
    for name in ("regularizer", "regularizer_weight"):
        del content["trained"]["training"][name]
    file.write_text(json.dumps({**content, "sha256": checksum(content)}))
    assert load_run(tmp_path / "run").training == config
    going = Trainer.resume(tmp_path / "run", DATA, epochs=3)
    going.run(progress=False)
    assert going.epoch == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularizer": "l2"}, "unknown regularizer 'l2', expected one of none, tau"),
        ({"regularizer_weight": 0.1}, "regularizer_weight has no effect without a regularizer"),
        ({"regularizer": "tau", "regularizer_weight": -1.0}, "regularizer_weight is -1.0, expected a finite number >= 0"),
        ({"regularizer": "tau", "optimizer": "lm"}, "optimizer 'lm' eliminates the readout, which regularizer 'tau' weighs"),
    ],
)
def test_settings_without_a_meaning_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_what_tau_is_not_for_is_refused_before_anything_is_trained():
    config = TrainingConfig("adam", regularizer="tau")
    with pytest.raises(ValueError, match="take model 'ssm' or activation 'linear'"):
        Trainer(ContinuousRNN(1, 3, 1, "tanh", dtype=F64), DATA, config)
    alone = Data.split(T, X[:2], X[:2])
    with pytest.raises(ValueError, match="two sequences or more"):
        Trainer(model(), alone, config)
    times = T.expand(len(DATA.x), -1)
    own_times = Data(times, DATA.x, DATA.y, DATA.x[:1], DATA.y[:1], t_validation=times[:1])
    with pytest.raises(ValueError, match="times of each sequence"):
        Trainer(model(), own_times, config)
