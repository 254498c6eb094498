from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odernn import activations, models, parameterizations, recurrences
from odernn.experiment import DEVICES, DTYPES, INITIALIZATIONS, INTERPOLATIONS, SOLVERS, ExperimentConfig
from odernn.experiment.config import _LATER, OWN
from odernn.losses import LOSSES
from odernn.seals import fingerprint
from odernn.training import MAX_SEED, OPTIMIZERS, REGULARIZERS, SCHEDULES, TrainingConfig
from targets import INPUTS, KERNELS, NONLINEARITIES

_positive = st.floats(1e-300, 1e300)
_natural = st.integers(1, 2**31 - 1)
_seeds = st.integers(0, MAX_SEED - 1)


@st.composite
def training_configs(draw):
    optimizer = draw(st.sampled_from(OPTIMIZERS))
    margin_weight = draw(st.floats(0, 1e300))
    values = {
        "optimizer": optimizer,
        "epochs": draw(st.integers(0, 2**31 - 1)),
        "iterations": draw(st.none() | _natural),
        "patience": draw(st.integers(0, 2**31 - 1)),
        "loss": draw(st.sampled_from(sorted(LOSSES))),
        "weight_decay": draw(st.floats(0, 1e300)),
        "margin": draw(st.floats(0, 1e300)) if margin_weight else 0.0,
        "margin_weight": margin_weight,
        "seed": draw(_seeds),
    }
    if optimizer != "lm":
        regularizer = draw(st.sampled_from(REGULARIZERS))
        weight = st.none() if regularizer == "none" else st.none() | st.floats(0, 1e300)
        values |= {"regularizer": regularizer, "regularizer_weight": draw(weight)}
        values |= {"lr": draw(st.none() | _positive), "schedule": draw(st.sampled_from(SCHEDULES))}
    if optimizer in ("adam", "adamw"):
        values |= {"batch_size": draw(st.none() | _natural), "gradient_clip": draw(st.none() | _positive)}
    return TrainingConfig(**values)


_SETTINGS = {
    "model": st.sampled_from(sorted(models.MODELS)),
    "activation": st.sampled_from(sorted(activations.ACTIVATIONS)),
    "recurrence": st.sampled_from(sorted(recurrences.RECURRENCES)),
    "parameterization": st.sampled_from(sorted(parameterizations.PARAMETERIZATIONS)),
    "hidden_size": _natural,
    "num_layers": _natural,
    "tau": st.none() | _positive,
    "kernel": st.sampled_from(sorted(KERNELS)) | st.text(),
    "nonlinearity": st.sampled_from(["none", *NONLINEARITIES]),
    "inputs": st.sampled_from(sorted(INPUTS)),
    "amplitude": _positive,
    "horizon": _positive,
    "points": st.integers(2, 2**31 - 1),
    "train_size": _natural,
    "validation_size": _natural,
    "interpolation": st.sampled_from(INTERPOLATIONS),
    "solver": st.sampled_from(SOLVERS),
    "solver_tolerance": _positive,
    "solver_chosen": st.booleans(),
    "substeps": _natural,
    "adjoint": st.booleans(),
    "rtol": _positive,
    "atol": _positive,
    "step_size": st.none() | _positive,
    "initialization": st.sampled_from(INITIALIZATIONS),
    "rescale_readout": st.just(False),  # which a warm start excludes
    "warm_start": st.none() | st.text(),
    **dict.fromkeys(OWN, st.none()),  # beside which generated targets keep their defaults
    "seed": _seeds,
    "device": st.sampled_from(DEVICES),
    "dtype": st.sampled_from(sorted(DTYPES)),
    "training": training_configs(),
}


@settings(deadline=None, max_examples=50)
@given(st.builds(ExperimentConfig, **_SETTINGS))
def test_every_config_survives_json(config) -> None:
    assert _SETTINGS.keys() == {field.name for field in fields(ExperimentConfig)}
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert ExperimentConfig.from_dict(json.loads(text), complete=True) == config


@settings(deadline=None, max_examples=50)
@given(st.builds(ExperimentConfig, **_SETTINGS), st.data())
def test_a_config_without_one_of_its_settings_takes_the_default_or_is_refused(config, data) -> None:
    values, name = config.to_dict(), data.draw(st.sampled_from(sorted(_SETTINGS)))
    del values[name]
    assert getattr(ExperimentConfig.from_dict(values), name) == getattr(ExperimentConfig(), name)
    if name in _LATER:  # runs of earlier versions had none
        assert getattr(ExperimentConfig.from_dict(values, complete=True), name) == getattr(ExperimentConfig(), name)
        return
    with pytest.raises(ValueError, match=name if name != "training" else "settings are missing"):
        ExperimentConfig.from_dict(values, complete=True)


def test_settings_of_later_versions_leave_the_fingerprints_of_earlier_runs() -> None:
    assert fingerprint(ExperimentConfig().identity()) == "9e6a2899840be887"
    assert ExperimentConfig(rescale_readout=True).identity() == ExperimentConfig().identity()  # as any other start
    regularized = ExperimentConfig(training=TrainingConfig(regularizer="tau", regularizer_weight=0.1))
    assert regularized.identity() != ExperimentConfig().identity()


def test_a_warm_start_has_a_readout_of_its_own() -> None:
    with pytest.raises(ValueError, match="rescale_readout is for models that start anew"):
        ExperimentConfig(rescale_readout=True, warm_start="runs/narrow")


def test_a_config_of_data_survives_json_and_moves_with_its_file() -> None:
    config = ExperimentConfig(data="here.csv", data_checksum="0" * 64, validation_fraction=0.3)
    assert ExperimentConfig.from_dict(json.loads(json.dumps(config.to_dict())), complete=True) == config
    assert replace(config, data="there.csv").identity() == config.identity()
    assert replace(config, data_checksum="1" * 64).identity() != config.identity()
    assert "data_checksum" not in ExperimentConfig().identity()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "here.csv", "kernel": "exponential"}, "data brings its own inputs and targets, got kernel as well"),
        ({"data": "here.csv", "points": 7, "horizon": 3.0}, "got horizon, points as well"),
        ({"data": "here.csv", "validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"validation_fraction": 0.2}, "are for data of your own"),
        ({"data": 3}, "data"),
    ],
)
def test_settings_that_data_leave_no_meaning_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(**settings)
