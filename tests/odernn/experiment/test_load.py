from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small_runs import SMALL, edit, make, resumed, rows, start

from odernn import Adaptive
from odernn.experiment import Experiment, ExperimentConfig, load, load_run, read_config
from odernn.experiment.parts import with_solver
from odernn.runs import RunDirectory
from odernn.training import Trainer, TrainingConfig


@pytest.mark.slow
def test_a_run_loads_without_training_data_or_optimiser(tmp_path, monkeypatch):
    experiment, run = start(tmp_path, solver="auto")
    experiment.train(run, progress=False)
    drawn, draw = [], load.inputs_of

    def counted(config, channels, *, validation=False):
        drawn.append(validation)
        return draw(config, channels, validation=validation)

    def no_trainer(*_, **__):
        raise AssertionError("a loaded run is not trained")

    monkeypatch.setattr(load, "inputs_of", counted)
    monkeypatch.setattr(Trainer, "__init__", no_trainer)
    loaded = load_run(run.path)
    assert drawn == [True]
    assert loaded.solver == experiment.solver
    # a config by hand may still ask for the choice, which is measured on training inputs
    edit(run, True, solver="auto", solver_chosen=False)
    assert load_run(run.path).solver == experiment.solver
    assert drawn == [True, True, False]


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


@pytest.mark.slow
def test_a_warm_started_run_resumes_and_loads_without_the_narrow_one(tmp_path):
    experiment, run = start(tmp_path, recurrence="symmetric", dtype="float32")
    experiment.train(run, progress=False)
    settings = SMALL | {"hidden_size": 6, "recurrence": "symmetric", "dtype": "float32", "solver": "auto"}
    wide = Experiment(ExperimentConfig(**settings, warm_start=str(run.path), training=TrainingConfig(epochs=2)))
    assert wide.trainer.validation_error() == pytest.approx(experiment.trainer.validation_error(), rel=1e-3)
    wide_run = RunDirectory.create(tmp_path / "wide", {"experiment": wide.config.to_dict()})
    wide.train(wide_run, progress=False)
    run.path.rename(tmp_path / "moved")
    loaded = load_run(wide_run.path)
    assert loaded.solver == wide.solver
    assert loaded.config.solver == "fused"


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_run_with_adaptive_steps_loads_with_them(tmp_path, num_layers):
    experiment, run = start(tmp_path, solver="adaptive", rtol=1e-4, atol=1e-5, num_layers=num_layers)
    assert experiment.solver == Adaptive("dopri5", 1e-4, 1e-5)
    experiment.train(run, progress=False)
    loaded = load_run(run.path)
    assert loaded.solver == experiment.solver
    assert with_solver(loaded.config, loaded.solver) == replace(loaded.config, solver_chosen=True)
    assert loaded.solver.finer(torch.float64).tolerances == pytest.approx((1e-5, 1e-6))


@pytest.mark.parametrize(
    "content", ['{"kind": "odernn run", "format": 1}', '{"kind": "odernn run", "format": 1, "experiment": [1]}']
)
def test_a_config_of_something_else_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="not that of an experiment"):
        load_run(tmp_path)


@pytest.mark.slow
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
