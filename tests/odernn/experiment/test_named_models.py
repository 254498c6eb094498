"""Models and activations that a run names as code of the user's: trained, resumed and loaded with trust alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from odernn import LeakyRNN, NeuralODE, load_run
from odernn.experiment import Experiment, ExperimentConfig
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

CODE = """
import torch
from odernn import Activation, ContinuousRNN, NeuralODE

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 2)
    def forward(self, t, h, x):
        return torch.tanh(self.net(torch.cat([h, x], -1))) - h

def make():
    return NeuralODE(Net(), 2)

def softsign(z):
    return z / (1 + z.abs())

other = Activation("other", torch.nn.functional.silu)
number = 3
"""
SMALL = ExperimentConfig(
    kernel="exponential", horizon=2.0, points=6, train_size=2, validation_size=2, hidden_size=3, training=TrainingConfig(epochs=1)
)


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return str(path)


def trained(config, path):
    run = RunDirectory.create(path, Experiment(config).record())
    experiment = Experiment(config)
    experiment.train(run, progress=False)
    return experiment


def test_a_model_that_is_code_is_trained_and_loaded(code, tmp_path):
    config = replace(SMALL, model=f"{code}:make", hidden_size=16, solver="rk4")
    experiment = trained(config, tmp_path / "run")
    assert isinstance(experiment.model, NeuralODE)
    with pytest.raises(ValueError, match="names code as its model"):
        load_run(tmp_path / "run")
    loaded = load_run(tmp_path / "run", trust_code=True).model
    for name, value in experiment.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    # the same seed means the same weights, another one others
    weights = [Experiment(replace(config, seed=seed)).model.f.net.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_activation_that_is_code_is_trained_and_loaded(code, tmp_path):
    for name in ("softsign", "other"):
        config = replace(SMALL, activation=f"{code}:{name}", model="leaky", tau=2.0, solver="rk4")
        trained(config, tmp_path / name)
        with pytest.raises(ValueError, match="names code as its activation"):
            load_run(tmp_path / name)
        loaded = load_run(tmp_path / name, trust_code=True).model
        assert isinstance(loaded, LeakyRNN)
        assert (loaded.activation.name, loaded.tau, loaded.activation.compiled) == (name, 2.0, False)


def test_what_does_not_fit_is_one_line(code):
    cases = {
        "is a int": replace(SMALL, model=f"{code}:number", hidden_size=16),
        "brings its own hidden_size": replace(SMALL, model=f"{code}:make"),
        "no attribute": replace(SMALL, activation=f"{code}:nothing"),
        "expected an Activation": replace(SMALL, activation=f"{code}:number"),
        "time constant of leaky models": replace(SMALL, tau=2.0),
    }
    for message, config in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            Experiment(config)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="tau"):
        replace(SMALL, tau=-1.0)


def test_runs_without_a_time_constant_are_the_runs_they_were():
    assert "tau" not in SMALL.identity()
    assert replace(SMALL, model="leaky", tau=2.0).identity()["tau"] == 2.0
