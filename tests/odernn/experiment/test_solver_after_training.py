"""The solver that 'auto' chose, as training leads the weights to faster rates than it was chosen for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from odernn import TorchDiffEq
from odernn.experiment import Experiment, ExperimentConfig, load_run, read_config
from odernn.losses import relative_l2
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

EPOCHS = 10


def start(path, rate, hidden_size=2):
    experiment = Experiment(
        ExperimentConfig(
            kernel=f"exponential:rate={rate}",
            recurrence="diagonal",
            hidden_size=hidden_size,
            train_size=8,
            validation_size=8,
            training=TrainingConfig(epochs=EPOCHS),
        )
    )
    return experiment, RunDirectory.create(path, experiment.record())


def without_seconds(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.mark.slow
def test_a_run_interrupted_after_its_solver_was_refined_resumes_to_the_same_bits(tmp_path):
    straight, straight_run = start(tmp_path / "straight", 40)
    straight.train(straight_run, progress=False)
    broken, run = start(tmp_path / "broken", 40)
    chosen, save = broken.solver, broken._save

    def interrupt(trainer, improved, run):
        save(trainer, improved, run)
        if broken.solver != chosen:
            raise KeyboardInterrupt

    broken._save = interrupt
    with pytest.raises(KeyboardInterrupt):
        broken.train(run, progress=False)
    assert 0 < broken.trainer.epoch < EPOCHS
    resumed = Experiment(read_config(run), warm=False)
    resumed.resume(run)
    assert resumed.solver == broken.solver
    resumed.train(run, progress=False)
    assert without_seconds(resumed.trainer.history) == without_seconds(straight.trainer.history)
    assert (run.path / "config.json").read_bytes() == (straight_run.path / "config.json").read_bytes()
    for name in ("load_best", "load_checkpoint"):
        ours, theirs = (getattr(at, name)() for at in (run, straight_run))
        ours, theirs = (state.get("model", state) for state in (ours, theirs))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[weight], theirs[weight]) for weight in ours)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "hidden_size"), [(40, 2), (100, 4)])
def test_the_error_that_is_reported_is_that_of_a_tight_solve(tmp_path, rate, hidden_size):
    experiment, run = start(tmp_path / "run", rate, hidden_size)
    summary = experiment.train(run, progress=False)
    data, tight = experiment.data, TorchDiffEq("dopri5", 1e-9, 1e-11, adjoint=False)
    with torch.no_grad():
        error = float(relative_l2(experiment.model(data.x_validation, data.t, solver=tight), data.y_validation))
    tolerance = experiment.config.solver_tolerance
    # Twice: what finer steps change by no more than the tolerance is off by up to 4 / 3 of it at second order (kinks).
    assert abs(summary["validation_relative_l2"] - error) <= 2 * tolerance
    assert summary["solver_deviation"] <= tolerance
    assert load_run(run.path).solver == experiment.solver
    assert replace(experiment.config, warm_start=None) == read_config(run)
