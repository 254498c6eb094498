from __future__ import annotations

import json

import pytest
import torch

from odernn.experiment import Experiment, ExperimentConfig, load_run
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

SMALL = {"hidden_size": 4, "points": 11, "horizon": 2.0, "train_size": 4, "validation_size": 4, "solver": "rk4"}


def make(training=None, **settings) -> Experiment:
    return Experiment(ExperimentConfig(**SMALL, **settings, training=training or TrainingConfig(epochs=2, iterations=2)))


def start(tmp_path, **settings):
    experiment = make(**settings)
    run = RunDirectory.create(tmp_path / "run", {"experiment": experiment.config.as_dict()})
    return experiment, run


def test_a_config_survives_json():
    config = ExperimentConfig(kernel="exponential:rate=2", training=TrainingConfig(optimizer="adam", gradient_clip=1.0))
    assert ExperimentConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_the_same_config_gives_the_same_numbers():
    for device in ("auto", "cpu"):
        one, two = make(device=device), make(device=device)
        for experiment in (one, two):
            experiment.trainer.run(progress=False)
        for a, b in zip(one.model.parameters(), two.model.parameters()):
            assert torch.equal(a, b)


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


def damage(path, how):
    if how == "truncate":
        path.write_bytes(path.read_bytes()[:100])
    elif how == "foreign":
        torch.save([1, 2], path)
    elif how == "other model":
        torch.save({"model": {"c": torch.zeros(3)}}, path)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncate", "foreign", "other model", "delete"])
def test_a_damaged_run_is_named_and_nothing_is_lost(tmp_path, how):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    for name in ("checkpoint.pt", "best.pt"):
        damage(run.path / name, how)
    with pytest.raises(ValueError, match=r"checkpoint|missing|truncated|fit its config"):
        make().resume(run)
    with pytest.raises(ValueError, match=r"checkpoint|missing|truncated|fit its config"):
        load_run(run.path)


def test_directories_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no run directory"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"kind": "something else"}')
    with pytest.raises(ValueError, match="not a run directory"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="not a run directory"):
        RunDirectory.create(tmp_path, {}, overwrite=True)
    assert (tmp_path / "config.json").read_text() == '{"kind": "something else"}'


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
        ({"model": "cnn"}, "choose one of rnn"),
        ({"activation": "swish"}, "choose one of linear"),
        ({"device": "cuda"}, "use --device cpu"),
        ({"horizon": -1.0}, "horizon must be positive"),
        ({"points": 1}, "points must be at least 2"),
        ({"kernel": "cubic"}, "polynomial"),
        ({"kernel": "shift"}, "all 0"),
        ({"solver": "exact"}, "solver 'exact' needs"),
        ({"model": "discrete_ssm", "solver": "rk4"}, "takes no solver"),
        ({"inputs": "silence"}, "choose one of"),
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


def test_a_warm_started_run_resumes_and_loads_without_the_narrow_one(tmp_path):
    experiment, run = start(tmp_path, recurrence="orthogonal", dtype="float32")
    experiment.train(run, progress=False)
    settings = SMALL | {"hidden_size": 6, "recurrence": "orthogonal", "dtype": "float32", "solver": "auto"}
    wide = Experiment(ExperimentConfig(**settings, warm_start=str(run.path), training=TrainingConfig(epochs=2)))
    assert wide.trainer.validation_error() == pytest.approx(experiment.trainer.validation_error(), rel=1e-3)
    wide_run = RunDirectory.create(tmp_path / "wide", {"experiment": wide.config.as_dict()})
    wide.train(wide_run, progress=False)
    run.path.rename(tmp_path / "moved")
    loaded = load_run(wide_run.path)
    assert loaded.solver == wide.solver
    assert loaded.config.solver == "fused"


@pytest.mark.parametrize(
    "content", ['{"kind": "odernn run", "format": 1}', '{"kind": "odernn run", "format": 1, "experiment": [1]}']
)
def test_a_config_of_something_else_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="not that of an experiment"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"seed": -1}, "seed must lie"), ({"seed": 2**40}, "seed must lie"), ({"margin": 0.5}, "margin_weight")],
)
def test_training_settings_without_effect_or_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)
