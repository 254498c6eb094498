from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import odernn
from analysis.experiments import run_experiment
from odernn import ExperimentConfig, TrainingConfig, load_run

CONFIG = ExperimentConfig(
    hidden_size=2, points=8, horizon=2.0, train_size=3, validation_size=3, training=TrainingConfig(epochs=2, iterations=1)
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "one"
    return path, run_experiment(CONFIG, path, progress=False)


def test_one_call_leaves_the_directory_that_the_command_leaves_and_returns_its_run(done):
    path, run = done
    assert {file.name for file in path.iterdir()} >= {
        "best.pt", "checkpoint.pt", "config.json", "memory.png", "metrics.csv", "summary.json", "training.png",
    }  # fmt: skip
    loaded = load_run(path)
    assert all(torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), loaded.model.state_dict().values()))
    assert json.loads((path / "summary.json").read_text())["epochs"] == 2


def test_a_run_is_not_replaced_unasked_and_goes_on_where_asked(done):
    path, _ = done
    before = (path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match="holds"):
        run_experiment(CONFIG, path)
    with pytest.raises(ValueError, match="hidden_size"):
        run_experiment(replace(CONFIG, hidden_size=3), path, resume=True)
    assert (path / "checkpoint.pt").read_bytes() == before
    longer = replace(CONFIG, training=replace(CONFIG.training, epochs=3))
    run_experiment(longer, path, resume=True, progress=False)
    assert json.loads((path / "summary.json").read_text())["epochs"] == 3


def test_it_has_a_name_in_odernn_and_refuses_what_is_no_config(tmp_path):
    assert odernn.run_experiment is run_experiment
    with pytest.raises(ValueError, match="expected ExperimentConfig"):
        run_experiment({"hidden_size": 2}, tmp_path / "run")
    with pytest.raises(ValueError, match="contradict"):
        run_experiment(CONFIG, tmp_path / "run", overwrite=True, resume=True)
    assert not (tmp_path / "run").exists()
