from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64

from odernn import parameterizations
from odernn.activations import ACTIVATIONS
from odernn.activations import get as get_activation
from odernn.parameterizations import PARAMETERIZATIONS, Inverse

TIMES = ("continuous", "discrete")
W = torch.linspace(-3, 3, 25, dtype=F64)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_the_inverse_undoes_f(name, time):
    f = parameterizations.get(name, time)
    w = W.abs() + 0.1 if name == "inverse" else W  # its inverse takes the branch w > 0
    assert torch.allclose(f.inverse(f(w)), w, rtol=1e-9, atol=1e-9)


def parameters(name):
    """a and b of 'inverse', which decide its range; nothing for the others."""
    if name != "inverse":
        return st.just({})
    return st.fixed_dictionaries({"a": st.floats(1e-3, 1e3), "b": st.floats(0.5, 1e3)})


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_value_in_the_range_has_a_raw_weight(name, time, data):
    f = parameterizations.get(name, time, **data.draw(parameters(name)))
    low, high = f.range
    # Up to the last number before each end, and to 1e300 in the other direction.
    ends = (max(np.nextafter(low, math.inf), -1e300), min(np.nextafter(high, -math.inf), 1e300))
    values = st.floats(*ends).filter(lambda value: value == 0 or abs(value) > 1e-300)
    value = torch.tensor([data.draw(values), *(end for end in ends if abs(end) > 1e-300)], dtype=F64)
    w = f.inverse(value)
    assert torch.isfinite(w).all()
    # f' tends to 0 towards the ends, where w keeps half of the digits: what counts is the eigenvalue.
    torch.testing.assert_close(f(w), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_the_ends_of_the_range_and_what_lies_outside_are_refused(name, time):
    f = parameterizations.get(name, time)
    for end, outwards in zip(f.range, (-1.0, 1.0)):
        if math.isfinite(end):
            for value in (end, end + 1e-9 * outwards, end + outwards):
                with pytest.raises(ValueError, match="reaches eigenvalues in"):
                    f.inverse(torch.tensor([value], dtype=F64))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), w=st.lists(st.floats(-30, 30), min_size=2, max_size=8))
def test_every_raw_weight_gives_a_value_of_the_range_and_a_monotone_one(name, time, data, w):
    f = parameterizations.get(name, time, **data.draw(parameters(name)))
    w = torch.tensor(w, dtype=F64).abs() if name == "inverse" else torch.tensor(w, dtype=F64)
    value, (low, high) = f(w.sort().values), f.range
    assert ((value >= low) & (value <= high)).all()  # the ends by rounding
    rises = f.derivative(torch.tensor(0.3, dtype=F64)) > 0
    assert ((value.diff() >= 0) if rises else (value.diff() <= 0)).all()


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_the_derivative_is_that_of_f(name, time):
    f = parameterizations.get(name, time)
    w = W.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(w).sum(), w)
    # autograd itself differentiates expm1 by adding 1 back, which rounds at 1e-16 of the factor e^w = 20
    assert torch.allclose(f.derivative(W), slope, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("name", [name for name, cls in PARAMETERIZATIONS.items() if cls.stable])
def test_no_finite_perturbation_of_a_stable_parameterization_leaves_the_stable_region(name, time):
    f = parameterizations.get(name, time)
    value = f(torch.cat([W, torch.tensor([-30.0, 3.5, 20.0], dtype=F64)]))
    assert (value <= 0).all() if time == "continuous" else (value.abs() <= 1).all()


def test_the_formulas_are_those_of_the_papers():
    w = torch.tensor(0.7, dtype=F64)
    e = math.exp(0.7)
    expected = {
        ("direct", "continuous"): 0.7,
        ("direct", "discrete"): 0.7,
        ("exp", "continuous"): -e,
        ("exp", "discrete"): math.exp(-e),
        ("softplus", "continuous"): -math.log(1 + e),
        ("softplus", "discrete"): 1 / (1 + e),
        ("inverse", "continuous"): -1 / (0.49 + 0.5),
        ("inverse", "discrete"): 1 - 1 / (0.49 + 0.5),
        ("lru", "continuous"): math.exp(-e) - 1,
        ("lru", "discrete"): math.exp(-e),
    }
    for (name, time), value in expected.items():
        assert parameterizations.get(name, time)(w).item() == pytest.approx(value, rel=1e-14), (name, time)


def test_gradient_scales_are_those_of_the_stable_ssm_paper():
    w = torch.tensor([-2.0, -0.5, 1.5], dtype=F64)
    assert torch.allclose(parameterizations.get("direct").gradient_scale(w), 1 / w**2)
    assert torch.allclose(parameterizations.get("exp").gradient_scale(w), torch.exp(-w))
    assert torch.allclose(Inverse(a=3.0, b=0.7).gradient_scale(w), 2 * 3.0 * w.abs())
    assert torch.allclose(Inverse(time="discrete", a=3.0, b=0.7).gradient_scale(w), 2 * 3.0 * w.abs())


@pytest.mark.parametrize("time", TIMES)
def test_the_lru_input_scale_normalises_by_the_modulus(time):
    f = parameterizations.get("lru", time)
    modulus = torch.exp(-torch.exp(W))
    assert torch.allclose(f.input_scale(f(W)), (1 - modulus**2).sqrt(), rtol=1e-9)


def test_a_slow_lru_mode_keeps_the_digits_of_its_input_scale():
    f = parameterizations.get("lru")
    assert f.input_scale(torch.tensor(-1e-14, dtype=F64)).item() == pytest.approx(math.sqrt(2e-14), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parameterizations.get("cubic"), "choose one of direct, exp, softplus, inverse, lru"),
        (lambda: parameterizations.get("exp", a=1.0), "does not take"),
        (lambda: parameterizations.get("exp", "sideways"), "continuous"),
        (lambda: Inverse(a=-1.0), "a of .*> 0"),
        (lambda: Inverse(time="discrete", b=0.3), "b >= 1/2"),
        (lambda: parameterizations.get("exp").inverse(torch.tensor([0.1])), "reaches eigenvalues"),
        (lambda: parameterizations.get("inverse").inverse(torch.tensor([-2.5])), r"\(-2, 0\)"),
        (lambda: get_activation("swish"), "expected one of linear, hardtanh, tanh, relu, sigmoid"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda activation: activation.name)
def test_the_derivative_of_an_activation_is_that_of_autograd(activation):
    z = torch.linspace(-2.03, 2.05, 41, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(z).sum(), z)
    assert torch.allclose(activation.slope(z.detach()), slope, rtol=1e-12)
    assert activation(torch.zeros(1)).item() == (0.5 if activation.name == "sigmoid" else 0.0)
