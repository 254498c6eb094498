from __future__ import annotations

import numpy as np
import pytest

from analysis.sweeps.axes import check_axes, combinations, config_with, directory_name, read_axes
from odernn.experiment import ExperimentConfig


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("hidden_size=4,8,16", (4, 8, 16)),
        ("hidden-size=4", (4,)),
        ("seed=0:3", (0, 1, 2)),
        ("seed=0:10:4,20", (0, 4, 8, 20)),
        ("hidden_size=4:64:log5", (4, 8, 16, 32, 64)),
        ("lr=1e-4:1e-1:log4", (1e-4, 1e-3, 1e-2, 1e-1)),
        ("horizon=1:2:lin3", (1.0, 1.5, 2.0)),
        ("horizon=10", (10.0,)),
        ("adjoint=true,false", (True, False)),
        ("lr=none,0.1", (None, 0.1)),
        ("nonlinearity=none,tanh", ("none", "tanh")),
        ("kernel=polynomial:exponent=1.1,polynomial:exponent=2", ("polynomial:exponent=1.1", "polynomial:exponent=2")),
        ("kernel=polynomial:exponent=1.1,scale=2,exponential", ("polynomial:exponent=1.1,scale=2", "exponential")),
    ],
)
def test_text_becomes_values_of_the_settings_type(word, values):
    (found,) = read_axes([word]).values()
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hidden_size"], "expected NAME=VALUES"),
        (["hidden_sise=4"], "did you mean hidden_size"),
        (["hidden_size=4,,8"], "empty value"),
        (["hidden_size=4,4"], "the value 4 twice"),
        (["hidden_size=4.5"], "expected integers"),
        (["hidden_size=none"], "expected integers"),
        (["seed=3:3"], "which is empty"),
        (["seed=0:4:0"], "expected FIRST:END"),
        (["lr=0.1:1"], "expected FIRST:LAST:logN"),
        (["lr=0:1:log3"], "both ends > 0"),
        (["lr=0:1:lin1"], "expected FIRST:LAST"),
        (["hidden_size=1:2:lin5"], "same integer twice"),
        (["adjoint=1"], "expected true,false"),
        (["seed=0:2", "seed=5"], "names seed twice"),
        (["seed=0:99999999999"], "at most 10000"),
        (["seed=0:200", "hidden_size=1:200"], "at most 10000"),
        (["data_checksum=a"], "no setting that can be varied"),
        (["kernel=exponential,"], "empty value"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(words, message):
    with pytest.raises(ValueError, match=message) as found:
        read_axes(words)
    assert "\n" not in str(found.value)


def test_values_come_as_any_sequence():
    axes = check_axes({"hidden_size": np.array([2, 4]), "seed": range(2), "horizon": [3], "lr": "1e-3:1e-1:log3"})
    assert axes == {"hidden_size": (2, 4), "seed": (0, 1), "horizon": (3.0,), "lr": (1e-3, 1e-2, 1e-1)}
    for wrong in ({}, {"seed": 3}, {"seed": []}, {"hidden_size": [None]}):
        with pytest.raises(ValueError, match=r"expected|no values"):
            check_axes(wrong)


def test_a_point_changes_its_settings_alone_and_the_seed_everywhere():
    config = config_with(ExperimentConfig(), {"epochs": 3, "hidden_size": 5, "seed": 7})
    assert (config.training.epochs, config.hidden_size, config.seed, config.training.seed) == (3, 5, 7, 7)


def test_directories_have_safe_names_that_differ():
    axes = check_axes({"kernel": ["polynomial:exponent=1.1", "polynomial:exponent=1,1", "exponential"], "seed": [0, 1]})
    names = [directory_name(point) for point in combinations(axes)]
    assert len(set(names)) == 6
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-=,~") for name in names)
    assert directory_name({"hidden_size": 4, "seed": 0}) == "hidden_size=4,seed=0"
    assert len(directory_name({"kernel": "a" * 500})) < 255


def test_a_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match="points"):
        config_with(ExperimentConfig(), {"points": 1})
