from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small_runs import SMALL, make, resumed, start

from odernn.experiment import Experiment, ExperimentConfig, load_run
from odernn.generalization import InputMoments, generalization_measure
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig


def test_the_same_config_gives_the_same_numbers():
    for device in ("auto", "cpu"):
        one, two = make(device=device), make(device=device)
        for experiment in (one, two):
            experiment.trainer.run(progress=False)
        for a, b in zip(one.model.parameters(), two.model.parameters()):
            assert torch.equal(a, b)


@pytest.mark.slow
def test_a_run_directory_holds_what_rebuilds_the_trained_model(tmp_path):
    experiment, run = start(tmp_path)
    summary = experiment.train(run, progress=False)
    assert {path.name for path in run.path.iterdir()} == {
        "config.json",
        "metrics.csv",
        "checkpoint.pt",
        "best.pt",
        "summary.json",
    }
    loaded = load_run(run.path)
    x, t = experiment.data.x_validation, experiment.data.t
    assert torch.equal(loaded.model(x, t, solver=loaded.solver), experiment.model(x, t, solver=experiment.solver))
    assert torch.equal(loaded.validation_inputs, x)
    assert torch.allclose(loaded.target(x, t), experiment.data.y_validation)
    assert json.loads((run.path / "summary.json").read_text()) == summary
    assert len((run.path / "metrics.csv").read_text().splitlines()) == 1 + 2


def test_a_rescaled_readout_begins_with_tau_1_and_is_not_rescaled_again(tmp_path):
    training = TrainingConfig("lbfgs", epochs=2, iterations=2, regularizer="tau", regularizer_weight=0.1)
    settings = {"model": "ssm", "activation": "linear", "recurrence": "diagonal", "solver": "exact", "training": training}
    experiment, run = start(tmp_path, rescale_readout=True, **settings)
    moments = InputMoments.measured(experiment.data.t, experiment.data.x)
    assert generalization_measure(experiment.model, moments).item() == pytest.approx(1, rel=1e-9)
    drawn = Experiment(replace(experiment.config, rescale_readout=False)).model
    ratio = (experiment.model.c / drawn.c).detach()
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio))
    summary = experiment.train(run, progress=False)
    assert summary["tau"] == pytest.approx(generalization_measure(experiment.model, moments).item(), rel=1e-12)
    again = resumed(run)
    assert torch.equal(again.trainer.best_weights["c"], experiment.model.c)


def test_the_best_weights_are_kept_when_later_epochs_are_worse(tmp_path):
    experiment, run = start(tmp_path, training=TrainingConfig(optimizer="adam", epochs=15, lr=10.0, batch_size=2))
    summary = experiment.train(run, progress=False)
    errors = [row["validation_relative_l2"] for row in experiment.trainer.history]
    assert summary["validation_relative_l2"] <= min(errors) * 1.01
    assert summary["best_epoch"] < 15


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    experiment, run = start(tmp_path, training=TrainingConfig(epochs=5, iterations=2))

    def interrupt(trainer, improved):
        experiment._save(trainer, improved, run)
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.trainer.run(interrupt, progress=False)
    resumed = Experiment(ExperimentConfig.from_dict(run.config()["experiment"]))
    resumed.resume(run)
    assert resumed.trainer.epoch == 2
    resumed.train(run, progress=False)
    straight = make(training=TrainingConfig(epochs=5, iterations=2))
    straight.trainer.run(progress=False)
    state = RunDirectory.open(run.path).load_checkpoint()["model"]
    for name, value in straight.model.state_dict().items():
        assert torch.equal(state[name], value)


def test_a_warm_start_takes_up_where_the_narrow_run_ended(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    wide = Experiment(ExperimentConfig(**(SMALL | {"hidden_size": 8}), warm_start=str(run.path)))
    assert wide.trainer.validation_error() == pytest.approx(experiment.trainer.validation_error(), rel=1e-6)


def test_single_precision_and_nonlinear_targets_train():
    experiment = make(dtype="float32", nonlinearity="tanh", kernel="two_part", recurrence="complex", parameterization="inverse")
    before = experiment.trainer.validation_error()
    experiment.trainer.run(progress=False)
    assert experiment.model.c.dtype == torch.float32
    assert experiment.trainer.validation_error() < before


def test_an_existing_run_is_replaced_only_when_told(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="--overwrite"):
        RunDirectory.create(run.path, {})
    assert (run.path / "best.pt").exists()
    RunDirectory.create(run.path, {"experiment": {}}, overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "notes.txt"]


def test_a_crash_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    before = (run.path / "checkpoint.pt").read_bytes()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(OSError, match="disk full"):
        run.save_checkpoint({"epoch": 1})
    assert (run.path / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "cnn"}, "unknown model 'cnn', expected one of rnn"),
        ({"activation": "swish"}, "expected one of linear"),
        ({"device": "cuda"}, "use --device cpu"),
        ({"horizon": -1.0}, "horizon is -1.0, expected a finite number > 0"),
        ({"points": 1}, "points is 1, expected an integer of at least 2"),
        ({"kernel": "cubic"}, "polynomial"),
        ({"kernel": "shift"}, "all 0"),
        ({"solver": "exact"}, "solver 'exact' needs"),
        ({"model": "discrete_ssm", "solver": "rk4"}, "takes no solver"),
        ({"inputs": "silence"}, "expected one of white_noise"),
    ],
)
def test_bad_settings_are_named_before_anything_runs(settings, message):
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(ValueError, match=message):
        Experiment(ExperimentConfig(**(SMALL | settings)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_runs_on_a_gpu():
    experiment = make(device="cuda")
    before = experiment.trainer.validation_error()
    experiment.trainer.run(progress=False)
    assert experiment.model.c.device.type == "cuda"
    assert experiment.trainer.validation_error() < before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**40}, "seed is .*, expected an integer from 0 to"),
        ({"margin": 0.5}, "margin_weight"),
    ],
)
def test_training_settings_without_effect_or_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_a_resumed_run_brings_every_file_up_to_date_with_its_checkpoint(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    whole = {file.name: file.read_bytes() for file in run.path.iterdir()}
    lines = (run.path / "metrics.csv").read_text().splitlines()
    (run.path / "metrics.csv").write_text("\n".join(lines[:-1]))  # killed between checkpoint and metrics
    (run.path / "best.pt").write_bytes(b"damaged")
    (run.path / "summary.json").unlink()
    resumed(run).train(run, progress=False)
    assert {file.name: file.read_bytes() for file in run.path.iterdir()} == whole


def test_the_best_weights_are_those_of_the_run_that_the_checkpoint_knows(tmp_path):
    """Killed after best.pt of an epoch that the resumed run, of another length, never reaches."""
    settings = {"optimizer": "adam", "schedule": "cosine", "batch_size": 2, "epochs": 3, "lr": 0.01}
    experiment, run = start(tmp_path, training=TrainingConfig(**settings))
    experiment.train(run, progress=False)
    before = run.load_best()
    run.save_best({name: value + 1 for name, value in before.items()})
    resumed(run).train(run, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in run.load_best().items())


def test_weights_given_before_the_first_epoch_are_the_ones_that_are_kept(tmp_path):
    experiment, run = start(tmp_path, training=TrainingConfig(epochs=0))
    with torch.no_grad():
        experiment.model.c += 1
    wanted = experiment.model.c.clone()
    experiment.train(run, progress=False)
    assert torch.equal(run.load_best()["c"], wanted)


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    for number, settings in enumerate(({"seed": 1}, {"kernel": "exponential"}, {"training": TrainingConfig(optimizer="adam")})):
        other, other_run = start(tmp_path / str(number), **settings)
        other.train(other_run, progress=False)
        (other_run.path / "checkpoint.pt").write_bytes((run.path / "checkpoint.pt").read_bytes())
        with pytest.raises(ValueError, match="does not fit its config"):
            resumed(other_run)


def test_another_number_of_threads_is_said_when_a_run_goes_on(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    torch.set_num_threads(2)
    try:
        with pytest.warns(UserWarning, match=r"number of threads \(1 before, 2 now\): the last digits may differ"):
            resumed(run)
    finally:
        torch.set_num_threads(1)


def test_fewer_epochs_than_are_done_are_refused(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    with pytest.raises(ValueError, match="has 2 epochs already, got 1: give at least 2 --epochs"):
        resumed(run, epochs=1)


def test_training_holds_the_directory_and_gives_it_back(tmp_path):
    experiment, run = start(tmp_path)
    save, found = experiment._save, []

    def look(*arguments, **named):
        with pytest.raises(ValueError, match="is being written by process"):
            RunDirectory.create(run.path, {}, overwrite=True)
        found.append(True)
        save(*arguments, **named)

    experiment._save = look
    experiment.train(run, progress=False)
    assert len(found) == 3
    RunDirectory.create(run.path, {}, overwrite=True)
