"""Every result of `analysis` is JSON, and comes back from it as it was."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import analysis
from analysis import (
    ExponentialSum,
    StateSpace,
    background_memory,
    balanced_truncation,
    best_readout,
    effective_state_size,
    expected_gauss_newton,
    fit_decay,
    fit_minimax,
    fixed_points,
    hankel_spectrum,
    judge_stable_approximation,
    kernel_distance,
    laplace_sum,
    linear_curves,
    lyapunov_exponents,
    measured_sensitivity,
    memory_capacity,
    memory_function,
    perturbation_error,
    stability_report,
    target_memory,
    width_errors,
)
from analysis.hankel import state_space
from analysis.linear.all_blocks import readout_bounds
from analysis.results import Result
from analysis.sweeps.results import Sweep
from odernn import ContinuousRNN, DiscreteRNN, json_values
from targets import ConvolutionalFunctional, kernels

T = np.linspace(0, 30, 61)
TIMES = torch.arange(40, dtype=torch.float64)
KERNEL = kernels.exponential()


def examples():
    """One or more of every kind of result."""
    linear, flow = laplace_sum(1.5, 2).model(), ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64)
    stepped = DiscreteRNN(1, 2, 1, seed=0, dtype=torch.float64)
    noise = 1 + 0.1 * np.random.default_rng(0).standard_normal(len(T))
    decays = [fit_decay((T, M)) for M in (np.exp(-T), (1 + T) ** -1.5, np.exp(-0.01 * T) * noise, np.zeros_like(T))]
    verdict = judge_stable_approximation(linear_curves(KERNEL, "exp", widths=(1, 2), horizon=10.0))
    return [
        *decays,
        *decays[0].fits.values(),
        ExponentialSum(np.array([1.0, 2.0]), np.array([0.5, -0.5])),
        fit_minimax(KERNEL, 1, 20.0, 0.1),
        kernel_distance(linear, KERNEL),
        readout_bounds(linear, KERNEL, 10.0),
        target_memory(KERNEL, 10.0),
        verdict,
        *verdict.blocks.values(),
        perturbation_error(linear, KERNEL, None, None, [0.0, 0.1], error="kernel_l1", horizon=10.0, draws=1, restarts=0),
        stability_report(linear),
        expected_gauss_newton(linear),
        measured_sensitivity(stepped, torch.ones(2, 5, 1, dtype=torch.float64), TIMES[:5]),
        memory_function(ConvolutionalFunctional(KERNEL), TIMES),
        memory_capacity(stepped, TIMES[:5], samples=100),
        lyapunov_exponents(stepped, TIMES),
        fixed_points(flow, starts=3),
        background_memory(flow, TIMES[:5], torch.ones(2, 5, 1, dtype=torch.float64)),
        effective_state_size(stepped, TIMES[:5], torch.ones(2, 5, 1, dtype=torch.float64)),
        best_readout(KERNEL, linear, 10.0),
        hankel_spectrum(linear),
        balanced_truncation(linear, 1),
        state_space(linear),
        width_errors(KERNEL, (1,), horizon=10.0),
        Sweep(("seed",), ({"seed": 0, "validation_error": 0.5}, {"seed": 1, "validation_error": None}), "sweeps/a"),
    ]


def result_classes():
    """Every dataclass of the package that has a `to_dict`."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(analysis.__path__, "analysis.")]
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type) and is_dataclass(kind)}
    return {kind for kind in kinds if kind.__module__.startswith("analysis.") and hasattr(kind, "to_dict")} - {Result}


KINDS = sorted(result_classes(), key=lambda kind: kind.__name__)
EXAMPLES = [example for example in examples() if type(example) in KINDS]


def same(value, other):
    """Equal to the last bit, the kinds of containers included; nan is nan."""
    if isinstance(value, torch.nn.Module):
        # The worst-case weights of a perturbation curve are no part of its values.
        return other is None or same(value.state_dict(), other.state_dict())
    if is_dataclass(value):
        return type(value) is type(other) and all(same(getattr(value, f.name), getattr(other, f.name)) for f in fields(value))
    if isinstance(value, np.ndarray | torch.Tensor):
        return type(value) is type(other) and value.dtype == other.dtype and same(value.tolist(), other.tolist())
    if isinstance(value, Mapping):
        return list(value) == list(other) and all(same(value[key], other[key]) for key in value)
    if isinstance(value, tuple | list):
        return type(value) is type(other) and len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, float | complex):
        return isinstance(other, float | complex) and (str(value) == str(other) or value == other != 0)
    return value == other


FLOATS = st.sampled_from([math.inf, -math.inf, math.nan]) | st.floats(1e-3, 1e3)


def changed(value, draw):
    """The value with other floats; of an array the last, since some have to increase."""
    if isinstance(value, float):
        return draw(FLOATS)
    if isinstance(value, torch.Tensor):
        return torch.from_numpy(changed(value.numpy(), draw))
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        copy = value.copy()
        copy.flat[-1] = draw(FLOATS)
        return copy
    if isinstance(value, tuple):
        return tuple(changed(part, draw) for part in value)
    if isinstance(value, Mapping):
        return {key: changed(part, draw) for key, part in value.items()}
    return value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_result_has_its_inverse_and_an_example_here(kind):
    assert hasattr(kind, "from_dict"), f"{kind.__name__} has to_dict without from_dict"
    assert any(type(example) is kind for example in EXAMPLES), f"give an example of {kind.__name__} here"


@pytest.mark.slow
@pytest.mark.parametrize("result", EXAMPLES, ids=lambda example: type(example).__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_result_comes_back_from_its_text_whatever_its_numbers(result, data):
    names = [field.name for field in fields(result)]
    for name in data.draw(st.lists(st.sampled_from(names), unique=True)):
        try:
            result = replace(result, **{name: changed(getattr(result, name), data.draw)})
        except ValueError:  # a state space refuses what has no Gramians
            assert type(result) is StateSpace
            reject()
    with np.errstate(all="ignore"):  # numbers that are derived, such as inf / inf
        text = json.dumps(result.to_dict(), allow_nan=False)
    for values in (json.loads(text), json_values.loads(text)):  # as it stands there, and as files are read
        assert same(result, type(result).from_dict(values))


def test_results_are_equal_if_their_numbers_are():
    first, second, third = (ExponentialSum(np.array([math.nan, r]), np.array([1.0, 2.0])) for r in (1.0, 1.0, 2.0))
    assert first == second
    assert first != third
    assert first != first.to_dict()


def test_a_result_is_shown_on_one_short_line():
    for result in EXAMPLES:
        if isinstance(result, Result):
            assert len(repr(result)) < 1000
            assert "\n" not in repr(result)
    assert repr(kernel_distance(laplace_sum(1.0, 1).model(), KERNEL, 1e-3)).startswith("KernelDistance(value=")


@dataclass(frozen=True, eq=False, repr=False)
class Toy(Result):
    text: str
    number: float
    several: tuple[float | None, ...] = ()


def test_text_that_reads_like_a_number_stays_text_in_a_field_of_text():
    toy = Toy("inf", math.inf, (None, math.nan))
    assert same(toy, Toy.from_dict(json.loads(json_values.dumps(toy))))


def test_values_that_lack_a_field_are_refused():
    with pytest.raises(ValueError, match=r"no Toy, they lack number, several: give what to_dict\(\) returned"):
        Toy.from_dict({"text": "a"})
