from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from odernn.experiment import Experiment, ExperimentConfig, load_run, read_config
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


def resumed(run, **training):
    """The run taken up again, as the script does it."""
    config = read_config(run, trust_code=True)
    experiment = Experiment(replace(config, training=replace(config.training, **training)), warm=False)
    experiment.resume(run)
    return experiment


def rows(run):
    return list(csv.DictReader((run.path / "metrics.csv").read_text().splitlines()))


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


def edit(run, seal=False, **settings):
    """config.json as changed by hand; `seal`: with the entry that says so deleted."""
    path = run.path / "config.json"
    content = json.loads(path.read_text())
    for name, value in settings.items():
        section, _, key = name.rpartition("__")
        (content["experiment"][section] if section else content["experiment"])[key] = value
    if seal:
        del content["sha256"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 20.5}, "points must be an integer, got 20.5"),
        ({"hidden_size": "4"}, "hidden_size must be an integer, got '4'"),
        ({"hidden_size": None}, "hidden_size must be an integer, got None"),
        ({"horizon": "long"}, "horizon must be a number"),
        ({"horizon": float("nan")}, "NaN"),
        ({"adjoint": 1}, "adjoint must be true or false"),
        ({"colour": "red"}, "unknown settings colour"),
        ({"training__colour": "red"}, "unknown settings colour"),
        ({"training__epochs": "2"}, "epochs must be an integer"),
        ({"training": None}, "training is None, expected settings"),
        ({"training": {}}, "settings are missing: batch_size"),
        ({"kernel": ["polynomial"]}, "kernel must be text"),
        ({"training__schedule": "cosine"}, "schedule is 'cosine' there, 'none' here|belongs to other settings"),
        ({"training__lr": 0.5}, "lr is 0.5 there, None here|belongs to other settings"),
        ({"activation": "relu"}, "activation is 'relu' there, 'tanh' here|belongs to other settings"),
        ({"hidden_size": 5}, "hidden_size is 5 there, 4 here|belongs to other settings"),
        ({"seed": 1}, "seed is 1 there, 0 here|belongs to other settings"),
    ],
)
def test_a_config_changed_by_hand_never_changes_a_run_in_silence(tmp_path, settings, message):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    whole = (run.path / "config.json").read_bytes()
    for use in (lambda: load_run(run.path), lambda: resumed(run)):
        for seal, line in ((False, "was changed since it was written|NaN"), (True, message)):
            (run.path / "config.json").write_bytes(whole)
            edit(run, seal, **settings)
            with pytest.raises(ValueError, match=line) as found:
                use()
            assert len(str(found.value).splitlines()) == 1


def test_what_a_config_may_say_by_hand_is_where_and_how_long_to_go_on(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    edit(run, True, device="cpu", training__epochs=3)
    resumed(run).train(run, progress=False)
    assert len(rows(run)) == 3
    assert load_run(run.path).config.training.epochs == 3


def test_a_missing_setting_is_named(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    content = json.loads((run.path / "config.json").read_text())
    del content["experiment"]["amplitude"], content["sha256"]
    (run.path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="settings are missing: amplitude"):
        load_run(run.path)


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    for number, settings in enumerate(({"seed": 1}, {"kernel": "exponential"}, {"training": TrainingConfig(optimizer="adam")})):
        other, other_run = start(tmp_path / str(number), **settings)
        other.train(other_run, progress=False)
        (other_run.path / "checkpoint.pt").write_bytes((run.path / "checkpoint.pt").read_bytes())
        with pytest.raises(ValueError, match="does not fit its config"):
            resumed(other_run)


def test_a_run_of_the_version_without_seals_loads_and_resumes_and_is_sealed_by_that(tmp_path):
    experiment, run = start(tmp_path)
    experiment.train(run, progress=False)
    weights = run.load_best()
    content = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({"kind": "odernn run", "format": 1, "experiment": content["experiment"]}))
    state = run.load_checkpoint()
    torch.save(
        {name: value for name, value in state.items() if name not in ("best", "experiment", "environment")},
        run.path / "checkpoint.pt",
    )
    torch.save(weights, run.path / "best.pt")
    with pytest.warns(UserWarning, match="carries no seal"):
        loaded = load_run(run.path)
    assert torch.equal(loaded.model.c, weights["c"])
    with pytest.warns(UserWarning, match="carries no seal"):
        again = resumed(run, epochs=3)
    again.train(run, progress=False)
    straight, straight_run = start(tmp_path / "straight", training=TrainingConfig(epochs=3, iterations=2))
    straight.train(straight_run, progress=False)
    assert (run.path / "best.pt").read_bytes() == (straight_run.path / "best.pt").read_bytes()
    load_run(run.path)


def test_code_that_a_run_names_runs_only_when_told(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\ndef rho(t):\n    return 1 / (1 + t) ** 2\n"
    )
    experiment, run = start(tmp_path, kernel=f"{code}:rho")
    experiment.train(run, progress=False)
    (tmp_path / "ran").unlink()
    warm = SMALL | {"hidden_size": 6, "warm_start": str(run.path)}
    for use in (
        lambda: load_run(run.path),
        lambda: read_config(run),
        lambda: Experiment(ExperimentConfig(**warm)),
    ):
        with pytest.raises(ValueError, match=r"names code as its kernel, .*mine.py:rho.*--trust-code"):
            use()
    assert not (tmp_path / "ran").exists()
    load_run(run.path, trust_code=True)
    Experiment(ExperimentConfig(**warm), trust_code=True)
    Experiment(ExperimentConfig(**warm, kernel=f"{code}:rho"))  # the user names that code himself


def test_a_kernel_whose_code_has_changed_is_noticed(tmp_path):
    code = tmp_path / "mine.py"
    code.write_text("def rho(t):\n    return 1 / (1 + t) ** 2\n")
    experiment, run = start(tmp_path, kernel=f"{code}:rho")
    experiment.train(run, progress=False)
    code.write_text("def rho(t):\n    return 1 / (1 + t) ** 2.01\n")
    for use in (lambda: load_run(run.path, trust_code=True), lambda: resumed(run)):
        with pytest.raises(ValueError, match="give other targets than when it was trained"):
            use()


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
