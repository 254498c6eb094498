from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from odernn import Activation, ContinuousRNN, Data, LeakyRNN, Trainer, TrainingConfig, load_run, train
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 2, 11, dtype=torch.float64)
X = inputs.white_noise(T, batch=6, seed=0)
DATA = Data.split(T, X, ConvolutionalFunctional(kernels.polynomial(exponent=1.5))(X, T))
CONFIG = TrainingConfig(optimizer="lbfgs", epochs=2, iterations=2)


def model(size=3, **options):
    return ContinuousRNN(1, size, 1, seed=0, dtype=torch.float64, **options)


def test_a_training_of_python_loads_with_model_history_and_settings(tmp_path):
    own = LeakyRNN(1, 3, 1, seed=0, tau=2.0, dtype=torch.float64)
    trainer = train(own, DATA, CONFIG, out=tmp_path / "run", progress=False)
    loaded = load_run(tmp_path / "run")
    assert type(loaded.model) is LeakyRNN
    assert torch.equal(loaded.model(X, T), own(X, T))
    assert loaded.history == trainer.history
    assert loaded.training == trainer.config
    assert (loaded.target, loaded.config, len(loaded.t), float(loaded.t[-1])) == (None, None, 11, 2.0)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["validation_relative_l2"] == trainer.best_error


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path):
    train(model(), DATA, CONFIG, out=tmp_path / "run", progress=False)
    going = Trainer.resume(tmp_path / "run", DATA, epochs=4)
    going.run(progress=False)
    going.save(tmp_path / "run")
    four = TrainingConfig(optimizer="lbfgs", epochs=4, iterations=2)
    train(model(), DATA, four, out=tmp_path / "straight", progress=False)
    assert (tmp_path / "run" / "best.pt").read_bytes() == (tmp_path / "straight" / "best.pt").read_bytes()
    again = train(model(), DATA, four, out=tmp_path / "straight", resume=True, progress=False)
    assert again.epoch == 4


def test_nothing_is_replaced_and_nothing_goes_on_with_other_data(tmp_path):
    train(model(), DATA, CONFIG, out=tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "best.pt").read_bytes()
    for use, message in (
        (lambda: train(model(), DATA, CONFIG, out=tmp_path / "run"), "holds a run already"),
        (lambda: Trainer(model(), DATA, CONFIG).save(tmp_path / "run"), "holds a run already"),
        (lambda: Trainer.resume(tmp_path / "run", Data.split(T, 2 * X, X)), "other data"),
        (lambda: train(model(4), DATA, CONFIG, out=tmp_path / "run", resume=True), "hidden_size is 3 there, 4 here"),
        (lambda: train(model(), DATA, CONFIG, resume=True), "give out="),
        (lambda: load_run(tmp_path / "run", model=model(4)), "hidden_size is 3 there, 4 here"),
        (lambda: load_run(tmp_path / "run" / "best.pt"), "is a file"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            use()
        assert "\n" not in str(found.value)
    assert (tmp_path / "run" / "best.pt").read_bytes() == before


def test_weights_of_a_model_of_ones_own_code_go_into_the_given_model(tmp_path):
    softsign = Activation("softsign", torch.nn.functional.softsign, True)
    own = model(activation=softsign)
    Trainer(own, DATA, TrainingConfig(optimizer="adam", epochs=1)).save(tmp_path / "run")
    with pytest.raises(ValueError, match=r"whose code is not saved: make that model and give load_run\(path, model=model\)"):
        load_run(tmp_path / "run")
    given = ContinuousRNN(1, 3, 1, seed=5, activation=softsign, dtype=torch.float64)
    assert load_run(tmp_path / "run", model=given).model is given
    assert torch.equal(given.c, own.c)


@pytest.mark.parametrize("name", ["config.json", "best.pt", "metrics.csv"])
def test_damage_is_one_line(tmp_path, name):
    train(model(), DATA, CONFIG, out=tmp_path / "run", progress=False)
    path = tmp_path / "run" / name
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 19)
    with pytest.raises(ValueError, match=name) as found:
        _ = load_run(tmp_path / "run").history
    assert "\n" not in str(found.value)


def test_what_is_saved_after_a_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    """Though the model has its best weights then, which are not its last ones."""
    config = replace(CONFIG, epochs=5, lr=0.5)
    whole = train(model(), DATA, config, progress=False)
    first = train(model(), DATA, replace(config, epochs=3), progress=False)
    first.save(tmp_path / "run")
    later = Trainer.resume(tmp_path / "run", DATA, epochs=5)
    later.run(progress=False)
    assert [row["loss"] for row in later.history] == [row["loss"] for row in whole.history]
