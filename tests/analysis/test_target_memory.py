from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.target_memory import of_samples, target_memory
from targets import ConvolutionalFunctional, NonlinearFunctional, kernels


def formula(rho):
    return kernels.from_callable(rho, name="formula")


EXPONENTIAL = {
    "e^-0.01t": (kernels.exponential(rate=0.01), 0.01),
    "e^-1e-4t": (kernels.exponential(rate=1e-4), 1e-4),
    "t^3 e^-t": (formula(lambda t: t**3 * np.exp(-t)), 1.0),
    "sum": (formula(lambda t: np.exp(-t) + 1e-3 * np.exp(-0.02 * t)), 0.02),
    "tempered": (formula(lambda t: (1 + t) ** -1.1 * np.exp(-0.005 * t)), 0.005),
    "damped": (formula(lambda t: np.exp(-0.1 * t) * np.cos(2 * t)), 0.1),
    # Terms that cancel: rounding, not memory, rules from t = 35 on.
    "cancelling": (formula(lambda t: (1 + np.exp(-t)) - 1), 1.0),
    "with noise": (formula(lambda t: np.exp(-t) + 1e-17 * np.cos(1000 * t)), 1.0),
}


@pytest.mark.parametrize("horizon", [10.0, 1000.0])
@pytest.mark.parametrize("name", EXPONENTIAL)
def test_the_rate_at_which_a_memory_ends_is_found_on_any_horizon(name, horizon):
    kernel, rate = EXPONENTIAL[name]
    memory = target_memory(kernel, horizon)
    assert memory.law == "exponential"
    assert memory.slowest_rate == pytest.approx(rate, rel=0.02)
    assert memory.needed_horizon() >= 29 / rate


@pytest.mark.parametrize("horizon", [10.0, 1000.0])
@pytest.mark.parametrize("exponent", [0.6, 1.1, 3.0])
def test_a_power_law_has_no_rate(exponent, horizon):
    for scale in (0.1, 1.0, 100.0):
        memory = target_memory(kernels.polynomial(exponent, scale), horizon)
        assert memory.law == "slower"
        assert memory.slowest_rate is None
        assert memory.needed_horizon() is None


@pytest.mark.parametrize("power", [0.4, 0.7, 0.9])
def test_a_stretched_exponential_is_neither(power):
    assert target_memory(formula(lambda t: np.exp(-(t**power))), 1000.0).law == "between"


def test_what_does_not_decay_is_no_exponential():
    assert target_memory(kernels.get("sine"), 100.0).law == "slower"
    assert target_memory(formula(np.ones_like), 100.0).law == "slower"


def test_a_pulse_needs_a_horizon_that_reaches_far_past_its_end():
    assert target_memory(kernels.get("shift"), 10.0).needed_horizon() == pytest.approx(44, rel=0.01)


def test_what_is_seen_ends_where_the_rest_is_as_large_as_the_error():
    memory = target_memory(kernels.exponential(), 1000.0)
    assert memory.seen(1000.0, 1e-3) == pytest.approx(math.log(1e3), rel=0.05)
    assert memory.seen(5.0, 1e-9) == pytest.approx(5.0, rel=0.01)
    power = target_memory(kernels.polynomial(3.0), 1000.0)
    assert power.seen(1000.0, 1e-2) == pytest.approx(9.0, rel=0.05)
    assert power.rate(9.0) == pytest.approx(3 * math.log(10 / 5.5) / 4.5, rel=0.01)
    # Nothing decays there: the horizon is all that is known.
    assert target_memory(formula(np.ones_like), 100.0).slowest_seen(100.0, 1e-3) == pytest.approx(0.01, rel=0.01)


def test_every_kind_of_target_has_its_memory_measured():
    kernel = kernels.exponential(rate=0.05)
    linear = ConvolutionalFunctional(kernel)
    for target in (kernel, linear, NonlinearFunctional(linear, "tanh"), lambda x, t: linear(x, t)):
        assert target_memory(target, 200.0).slowest_rate == pytest.approx(0.05, rel=0.02)
    power = NonlinearFunctional(ConvolutionalFunctional(kernels.polynomial(1.5)), "tanh")
    assert target_memory(power, 200.0).law == "slower"


def test_samples_are_followed_to_their_floor():
    t = np.linspace(0, 400, 4001)
    assert of_samples(t, np.exp(-0.2 * t) + 1e-9, floor=1e-8).slowest_rate == pytest.approx(0.2, rel=0.02)


def test_bad_input_is_refused_in_one_line():
    for target, horizon, message in (
        (kernels.exponential(), 0.0, "horizon is 0.0, expected a finite number > 0"),
        (kernels.exponential(), math.inf, "horizon is inf"),
        (3, 1.0, "the target is a int"),
        (formula(np.zeros_like), 1.0, "memory is 0"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            target_memory(target, horizon)
        assert "\n" not in str(caught.value)
