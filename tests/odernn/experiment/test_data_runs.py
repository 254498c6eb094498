from __future__ import annotations

import numpy as np
import pytest
import torch
from small_runs import resumed

from odernn import Experiment, ExperimentConfig, TrainingConfig, load_run
from odernn.runs import RunDirectory


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    t = np.linspace(2, 4, 21)
    x = rng.standard_normal((5, 21, 2)).cumsum(1)
    y = np.where(rng.random((5, 21, 1)) < 0.3, np.nan, x[..., :1] - x[..., 1:])
    np.savez(tmp_path / "data.npz", t=t, x=x, y=y)
    return tmp_path / "data.npz"


def trained(file, path, **settings):
    training = TrainingConfig(epochs=2)
    experiment = Experiment(ExperimentConfig(data=str(file), hidden_size=3, training=training, **settings))
    run = RunDirectory.create(path, experiment.record())
    experiment.train(run, progress=False)
    return experiment, run


@pytest.mark.parametrize("settings", [{}, {"model": "discrete_rnn"}, {"dtype": "float32", "initialization": "geometric"}])
def test_a_run_of_data_trains_resumes_and_loads(file, tmp_path, settings):
    experiment, run = trained(file, tmp_path / "run", **settings)
    assert experiment.target is None
    assert (experiment.model.input_size, experiment.model.output_size) == (2, 1)
    again = resumed(run, epochs=3)
    again.train(run, progress=False)
    loaded = load_run(run.path)
    assert loaded.target is None
    assert torch.equal(loaded.data.y_validation.nan_to_num(), again.data.y_validation.nan_to_num())
    assert loaded.config.data == str(file)
    found = loaded.model(loaded.validation_inputs, loaded.t, solver=loaded.solver)
    assert torch.allclose(found, again.model(again.data.x_validation, again.data.t, solver=again.solver), rtol=1e-4, atol=1e-5)


def test_a_run_refuses_data_that_have_changed_or_gone(file, tmp_path):
    _, run = trained(file, tmp_path / "run")
    kept = file.read_bytes()
    np.savez(file, **{**np.load(file), "t": np.linspace(2, 5, 21)})
    for again in (lambda: load_run(run.path), lambda: resumed(run, epochs=3)):
        with pytest.raises(ValueError, match=r"data\.npz: is not the file that the run was trained on"):
            again()
    file.unlink()
    with pytest.raises(ValueError, match="the file that the run was trained on is not there"):
        load_run(run.path)
    file.write_bytes(kept)
    assert load_run(run.path).data.t[0] == 2
