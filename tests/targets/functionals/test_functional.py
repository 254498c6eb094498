from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from targets import NONLINEARITIES, ConvolutionalFunctional, NonlinearFunctional, TeacherFunctional, kernels, make_target

EVEN = torch.linspace(0, 20, 41, dtype=torch.float64)
X = torch.ones(2, 41, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (X, EVEN.flip(0), r"t is not increasing \(t\[0\] = 20"),
        (X, EVEN.round(), "t is not increasing"),
        (X[:, :40], EVEN, r"x has shape \(2, 40, 1\), expected \(..., 41, channel\)"),
        (X[0, :, 0], EVEN, r"x has shape \(41,\)"),
        (X.expand(-1, -1, 2), EVEN, "expected 1 channels on the last axis"),
        (X.index_fill(1, torch.tensor([3]), float("nan")), EVEN, "x holds NaN"),
        (X.index_fill(1, torch.tensor([3]), float("inf")), EVEN, "x holds NaN or inf"),
        (X.long(), EVEN, "x is a torch.int64 tensor"),
        (X.tolist(), EVEN, "x is a list"),
        (X, EVEN.numpy(), "t is a ndarray"),
        (X, EVEN[None], "t has shape"),
        (X[:, :0], EVEN[:0], "t has shape"),
    ],
)
@pytest.mark.parametrize(
    "functional",
    [
        ConvolutionalFunctional(kernels.sine()),
        NonlinearFunctional(ConvolutionalFunctional(kernels.sine()), "tanh"),
        TeacherFunctional(nn.Identity(), input_size=1),
    ],
    ids=lambda functional: type(functional).__name__,
)
def test_wrong_input_is_refused_in_one_line(functional, x, t, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        functional(x, t)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvolutionalFunctional(np.exp), "kernel is a ufunc, expected a Kernel"),
        (
            lambda: ConvolutionalFunctional(kernels.sine(), "cubic"),
            "unknown interpolation 'cubic', expected one of linear, hold",
        ),
        (lambda: NonlinearFunctional(TeacherFunctional(nn.Identity()), "tanh"), "is a TeacherFunctional"),
        (
            lambda: NonlinearFunctional(ConvolutionalFunctional(kernels.sine()), "cosh"),
            "unknown psi 'cosh'.*tanh",
        ),
        (
            lambda: NonlinearFunctional(ConvolutionalFunctional(kernels.sine()), torch.sum)(X, EVEN),
            "psi made",
        ),
        (lambda: TeacherFunctional("lstm"), "module is a str"),
        (
            lambda: TeacherFunctional(nn.Linear(1, 1).double())(X.float(), EVEN),
            "x is torch.float32, the teacher",
        ),
        (lambda: TeacherFunctional(lambda x: x.sum(dim=1))(X, EVEN), r"the teacher made shape \(2, 1\)"),
        (lambda: TeacherFunctional(lambda x: {"y": x})(X, EVEN), "the teacher made a dict"),
        (lambda: ConvolutionalFunctional(kernels.sine()).rate(EVEN, torch.ones(3)), "expected 1 channels"),
    ],
)
def test_wrong_functionals_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_target_is_made_of_names() -> None:
    x = torch.randn(2, 41, 1, dtype=torch.float64)
    H = make_target("polynomial:exponent=1.1", interpolation="hold")
    assert torch.equal(H(x, EVEN), ConvolutionalFunctional(kernels.polynomial(1.1), "hold")(x, EVEN))
    assert torch.equal(make_target("sine", "tanh")(x, EVEN), make_target("sine")(x, EVEN).tanh())
    for names in (("cubic",), ("sine", "quartz"), ("sine", "none", "spline")):
        with pytest.raises(ValueError, match=rf"unknown \w+ '{names[-1]}', expected one of"):
            make_target(*names)


# Random grids, inputs on them, and functionals.
_SAMPLES = {
    "steps": st.lists(st.floats(0.01, 3.0), min_size=2, max_size=8),
    "seed": st.integers(0, 99),
    "kernel": st.sampled_from(sorted(kernels.KERNELS)),
    "interpolation": st.sampled_from(["linear", "hold"]),
}
_NONLINEARITIES = st.sampled_from(["none", *NONLINEARITIES])
_properties = settings(deadline=None, max_examples=25)


def grid(steps: list[float]) -> torch.Tensor:
    return torch.tensor([0.0, *steps], dtype=torch.float64).cumsum(0)


def pair(t: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.randn(2, 1, len(t), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(y: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-8 * max(1.0, float(expected.abs().max())))


@_properties
@given(**_SAMPLES, a=st.floats(-10, 10), b=st.floats(-10, 10))
def test_a_convolution_is_linear(steps, seed, kernel, interpolation, a, b) -> None:
    H, t = make_target(kernel, interpolation=interpolation), grid(steps)
    x, z = pair(t, seed)
    assert_same(H(a * x + b * z, t), a * H(x, t) + b * H(z, t))


@_properties
@given(**_SAMPLES, nonlinearity=_NONLINEARITIES, start=st.floats(-100, 100))
def test_a_functional_is_the_same_at_every_time(steps, seed, kernel, interpolation, nonlinearity, start) -> None:
    H, t = make_target(kernel, nonlinearity, interpolation), grid(steps)
    x, _ = pair(t, seed)
    assert_same(H(x, t + start), H(x, t))
    assert not H(0 * x, t).any()


@_properties
@given(**_SAMPLES, nonlinearity=_NONLINEARITIES, data=st.data())
def test_a_functional_at_t_depends_on_its_input_up_to_t_only(steps, seed, kernel, interpolation, nonlinearity, data) -> None:
    H, t = make_target(kernel, nonlinearity, interpolation), grid(steps)
    x, z = pair(t, seed)
    k = data.draw(st.integers(0, len(t) - 1))
    later = torch.cat([x[:, : k + 1], 100 * z[:, k + 1 :]], 1)
    changed, y = H(later, t), H(x, t)
    assert_same(changed[:, : k + 1], y[:, : k + 1])
    # and on the last samples: what changes nothing would pass the line above
    if kernel == "exponential" and nonlinearity == "none" and k < len(t) - 2:
        assert not torch.allclose(changed[:, -1], y[:, -1])


@_properties
@given(**_SAMPLES, nonlinearity=_NONLINEARITIES)
def test_more_output_points_of_the_same_input_leave_the_values(steps, seed, kernel, interpolation, nonlinearity) -> None:
    H, t = make_target(kernel, nonlinearity, interpolation), grid(steps)
    x, _ = pair(t, seed)
    finer = torch.cat([t, (t[1:] + t[:-1]) / 2]).sort().values
    middle = x[:, :-1] if interpolation == "hold" else (x[:, 1:] + x[:, :-1]) / 2
    refined = torch.cat([torch.stack([x[:, :-1], middle], 2).flatten(1, 2), x[:, -1:]], 1)
    assert_same(H(refined, finer)[:, ::2], H(x, t))
