from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from odernn.experiment import ExperimentConfig
from odernn.settings import check_types
from odernn.training import TrainingConfig


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    count: int = 1
    rate: float = 1.0
    step: float | None = None
    name: str = "a"
    on: bool = False
    inner: Inner = Inner()

    def __post_init__(self):
        check_types(self)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1.0}, "count must be an integer, got 1.0"),
        ({"count": True}, "count must be an integer, got True"),
        ({"count": "1"}, "count must be an integer, got '1'"),
        ({"count": None}, "count must be an integer, got None"),
        ({"rate": "1"}, "rate must be a number, got '1'"),
        ({"rate": None}, "rate must be a number, got None"),
        ({"rate": 10**400}, "rate must be a number"),
        ({"rate": 1j}, "rate must be a number"),
        ({"step": "x"}, "step must be a number or nothing, got 'x'"),
        ({"name": 1}, "name must be text, got 1"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"inner": {"size": 1}}, "inner must be a Inner"),
    ],
)
def test_a_value_of_another_type_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Outer(**settings)


def test_numbers_of_numpy_and_integers_for_floats_become_plain_ones():
    outer = Outer(count=np.int64(3), rate=2, step=np.float32(0.5))
    assert (outer.count, outer.rate, outer.step) == (3, 2.0, 0.5)
    assert [type(value) for value in (outer.count, outer.rate, outer.step)] == [int, float, float]


@pytest.mark.parametrize("config", [ExperimentConfig, TrainingConfig])
def test_every_setting_of_a_training_is_checked(config):
    for name in config.__dataclass_fields__:
        for value in ([], {}, b"1", 1 + 2j):
            with pytest.raises(ValueError, match=rf"^({name} must be|unknown {name} )"):
                config(**{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
@pytest.mark.parametrize("name", ["horizon", "amplitude", "solver_tolerance", "rtol", "atol", "step_size"])
def test_lengths_and_tolerances_are_positive_and_finite(name, value):
    with pytest.raises(ValueError, match=rf"{name} is .*, expected a finite number > 0"):
        ExperimentConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1, expected an integer of at least 0"),
        ({"seed": 2**70}, "seed is 1180591620717411303424, expected an integer from 0"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic', expected one of linear, hold"),
        ({"recurrence": "sparse"}, "unknown recurrence"),
        ({"nonlinearity": "quartz"}, "expected one of none"),
        ({"num_layers": 0}, "num_layers is 0, expected an integer of at least 1"),
        ({"substeps": 0}, "substeps is 0, expected an integer of at least 1"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_built(settings, message):
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(**settings)
