from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from targets import (
    KERNELS,
    ConvolutionalFunctional,
    QuadratureError,
    inputs,
    kernels,
    quadrature,
)

EVEN = torch.linspace(0, 20, 41, dtype=torch.float64)
UNEVEN = torch.sort(20 * torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).values
GRIDS = pytest.mark.parametrize("t", [EVEN, UNEVEN], ids=["even", "uneven"])
INTERPOLATIONS = pytest.mark.parametrize("interpolation", ["linear", "hold"])

CALLABLES = {
    "damped cosine": lambda t: np.exp(-0.5 * t) * np.cos(3 * t),
    "t e^-t": lambda t: t * np.exp(-t),
    "two rates": lambda t: np.exp(-t) - 0.5 * np.exp(-0.1 * t),
    "t^-0.5": lambda t: t**-0.5,
}
ALL = {name: kernels.get(name) for name in KERNELS} | {name: kernels.from_callable(f, name=name) for name, f in CALLABLES.items()}


def interpolant(x: np.ndarray, t: np.ndarray, interpolation: str, s: float) -> float:
    if interpolation == "linear":
        return float(np.interp(s, t, x))
    return float(x[np.searchsorted(t, s, side="right") - 1])


def by_direct_quadrature(kernel, x: np.ndarray, t: np.ndarray, n: int, interpolation: str) -> float:
    """int_{t_0}^{t_n} rho(t_n - s) x(s) ds, piece by piece between samples and breakpoints of rho."""
    knots = np.unique([*(t[n] - t[: n + 1]), *(c for c in kernel.breakpoints if c < t[n] - t[0])])
    total = 0.0
    for a, b in itertools.pairwise(knots):

        def integrand(tau: float) -> float:
            return kernel(tau) * interpolant(x, t, interpolation, t[n] - tau)

        total += quad(integrand, a, b, epsabs=1e-13, epsrel=1e-13, limit=200)[0]
    return total


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")  # quad cannot reach 1e-13 at t^-0.5
@pytest.mark.parametrize("name", ALL)
@INTERPOLATIONS
@GRIDS
def test_every_kernel_agrees_with_direct_quadrature_of_the_interpolant(name, interpolation, t) -> None:
    x = inputs.white_noise(t, 2, seed=4)
    y = ConvolutionalFunctional(ALL[name], interpolation)(x, t)
    assert y.shape == (2, len(t), 1)
    assert (y[:, 0] == 0).all()
    for n in (1, len(t) // 2, len(t) - 1):
        reference = by_direct_quadrature(ALL[name], x[1, :, 0].numpy(), t.numpy(), n, interpolation)
        assert y[1, n, 0].item() == pytest.approx(reference, abs=1e-10)


@GRIDS
def test_exponential_kernel_obeys_its_recurrence(t) -> None:
    x = inputs.white_noise(t, 3, seed=5)
    expected = torch.zeros_like(x)
    for n, h in enumerate(t.diff()):
        phi = -torch.expm1(-h)
        slope = (x[:, n + 1] - x[:, n]) / h
        expected[:, n + 1] = torch.exp(-h) * expected[:, n] + x[:, n] * phi + slope * (h - phi)
    y = ConvolutionalFunctional(kernels.exponential())(x, t)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "of_one", "of_ramp"),
    [
        (
            kernels.polynomial(1.5),
            lambda t: 2 - 2 * (1 + t) ** -0.5,
            lambda t: 2 * t - 4 * ((1 + t) ** 0.5 - 1),
        ),
        (
            kernels.shift(),
            lambda t: np.clip(t, 9, 11) - 9,
            lambda t: np.where(t > 9, (t - 9) ** 2 / 2, 0) - np.where(t > 11, (t - 11) ** 2 / 2, 0),
        ),
        (kernels.sine(), lambda t: 1 - np.cos(t), lambda t: t - np.sin(t)),
        (ALL["t^-0.5"], lambda t: 2 * t**0.5, lambda t: 4 / 3 * t**1.5),
    ],
    ids=["polynomial", "shift", "sine", "t^-0.5"],
)
@GRIDS
def test_constant_and_ramp_give_the_integrals_of_the_kernel(kernel, of_one, of_ramp, t) -> None:
    elapsed = t - t[0]
    H = ConvolutionalFunctional(kernel)
    y = H(torch.stack([torch.ones_like(t), elapsed]).unsqueeze(-1), t)[..., 0].numpy()
    np.testing.assert_allclose(y[0], of_one(elapsed.numpy()), rtol=0, atol=1e-10)
    np.testing.assert_allclose(y[1], of_ramp(elapsed.numpy()), rtol=0, atol=1e-10)


def refined(t: torch.Tensor, how: str) -> torch.Tensor:
    if how == "even":
        return torch.linspace(t[0].item(), t[-1].item(), 2 * len(t) - 1, dtype=t.dtype)
    generator = torch.Generator().manual_seed(0)
    extra = t[0] + (t[-1] - t[0]) * torch.rand(37, dtype=t.dtype, generator=generator)
    return torch.sort(torch.cat([t, extra])).values


@pytest.mark.slow
@pytest.mark.parametrize("how", ["even", "uneven"])
@pytest.mark.parametrize("name", ALL)
@INTERPOLATIONS
def test_writing_the_same_interpolant_on_a_finer_grid_changes_nothing(name, how, interpolation) -> None:
    # 33 points on [0, 16]: both grids are exact in binary, so that a sample of the coarse grid is one of the fine
    coarse = torch.linspace(0, 16, 33, dtype=torch.float64)
    fine = refined(coarse, how)
    x = inputs.white_noise(coarse, 1, seed=6)[0, :, 0]
    values = [interpolant(x.numpy(), coarse.numpy(), interpolation, s) for s in fine.tolist()]
    H = ConvolutionalFunctional(ALL[name], interpolation)
    y = H(x[:, None], coarse)
    y_fine = H(torch.tensor(values, dtype=torch.float64)[:, None], fine)
    shared = torch.searchsorted(fine, coarse)
    assert torch.equal(fine[shared], coarse)
    torch.testing.assert_close(y_fine[shared], y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grids_of_linspace_and_arange_are_even_at_any_origin(dtype) -> None:
    H = ConvolutionalFunctional(kernels.polynomial())
    grids_given = [
        torch.linspace(0, 10, 101, dtype=dtype),
        torch.linspace(100, 110, 101, dtype=dtype),
        0.1 * torch.arange(101, dtype=dtype),
    ]
    reference = None
    for t in grids_given:
        y = H(torch.ones(101, 1, dtype=torch.float64), t)
        reference = y if reference is None else reference
        torch.testing.assert_close(y, reference, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-4)
    # an uneven grid would have kept a matrix of weights
    assert all(weights[0].shape == (100, 1) for weights in H._weights.values())


def test_a_grid_uneven_beyond_rounding_is_not_taken_for_even() -> None:
    t = EVEN.clone()
    t[20] += 1e-9
    H = ConvolutionalFunctional(kernels.sine())
    x = inputs.white_noise(t, 1, seed=1)
    expected = by_direct_quadrature(kernels.sine(), x[0, :, 0].numpy(), t.numpy(), 20, "linear")
    assert H(x, t)[0, 20, 0].item() == pytest.approx(expected, abs=1e-12)


@GRIDS
@INTERPOLATIONS
def test_a_vector_kernel_sums_its_channels(t, interpolation) -> None:
    parts = [kernels.exponential(), kernels.shift(), ALL["t^-0.5"]]
    x = inputs.white_noise(t, 2, channels=3, seed=7)
    y = ConvolutionalFunctional(kernels.stack(parts), interpolation)(x, t)
    expected = sum(ConvolutionalFunctional(part, interpolation)(x[..., c : c + 1], t) for c, part in enumerate(parts))
    assert y.shape == (2, len(t), 1)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)


@GRIDS
def test_leading_axes_are_kept(t) -> None:
    x = inputs.white_noise(t, 6, seed=8)
    H = ConvolutionalFunctional(kernels.airy())
    flat = H(x, t)
    torch.testing.assert_close(H(x.reshape(2, 3, len(t), 1), t), flat.reshape(2, 3, len(t), 1))
    torch.testing.assert_close(H(x[0], t), flat[0])


@pytest.mark.parametrize("rho", [lambda t: 1 / t, lambda t: t**-1.5], ids=["1/t", "t^-1.5"])
@GRIDS
def test_a_kernel_that_is_not_integrable_raises(rho, t) -> None:
    H = ConvolutionalFunctional(kernels.from_callable(rho, name="mine"))
    with pytest.raises(QuadratureError, match=r"kernel mine cannot be integrated over \[0, "):
        H(torch.ones(len(t), 1, dtype=torch.float64), t)


@GRIDS
@INTERPOLATIONS
def test_gradients_with_respect_to_the_input_are_those_of_finite_differences(t, interpolation) -> None:
    kernel = kernels.stack([kernels.polynomial(), kernels.two_part()])
    linear = ConvolutionalFunctional(kernel, interpolation)
    few = t[:9]
    x = inputs.white_noise(few, 2, channels=2, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: linear(x, few), x)


@GRIDS
def test_float32_is_computed_in_float64_and_cast_back(t) -> None:
    x = inputs.white_noise(t, 2, seed=10).float()
    H = ConvolutionalFunctional(kernels.polynomial())
    y = H(x, t)
    assert y.dtype == torch.float32
    assert torch.equal(y, H(x.double(), t).float())


@GRIDS
def test_a_second_call_on_a_grid_does_no_quadrature(t, monkeypatch) -> None:
    calls = []
    moments = quadrature.moments

    def counted(*arguments):
        calls.append(arguments)
        return moments(*arguments)

    monkeypatch.setattr(quadrature, "moments", counted)
    H = ConvolutionalFunctional(kernels.sine())
    x = inputs.white_noise(t, 2)
    first = H(x, t)
    assert len(calls) == 1
    H(x[:, :20], t[:20])
    assert torch.equal(H(x, t), first)
    assert len(calls) == 2
    H(x, t + 1 / 8)  # a shift in time is the same grid of lags; exact in binary up to the rounding of t
    assert torch.allclose(H(x, t), first)
    for n in range(2, 12):  # old grids are forgotten, new answers stay right
        H(x[:, :n], t[:n])
    assert len(H._weights) <= 4
    assert torch.equal(H(x, t), first)


def test_quadrature_error_is_known_after_use() -> None:
    H = ConvolutionalFunctional(kernels.sine())
    assert H.quadrature_error is None
    H(torch.ones(41, 1, dtype=torch.float64), EVEN)
    assert H.quadrature_error is not None
    assert 0 < H.quadrature_error < 1e-12


def test_one_sample_gives_zero() -> None:
    H = ConvolutionalFunctional(kernels.exponential())
    assert H(torch.ones(3, 1, 1), torch.tensor([2.0])).tolist() == [[[0.0]]] * 3


@pytest.mark.parametrize("name", ALL)
def test_rate_is_the_kernel_and_step_its_integral(name: str) -> None:
    H = ConvolutionalFunctional(ALL[name])
    t = EVEN[1:]
    rho = torch.from_numpy(ALL[name](t.numpy()))
    amplitudes = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    torch.testing.assert_close(H.rate(t, amplitudes)[..., 0], amplitudes * rho, rtol=0, atol=1e-15)
    constant = amplitudes[:, None].expand(-1, len(EVEN), -1)
    torch.testing.assert_close(H.step(t, amplitudes), H(constant, EVEN)[:, 1:], rtol=0, atol=1e-11)


def test_step_and_rate_are_zero_before_the_input_sets_in() -> None:
    H = ConvolutionalFunctional(kernels.exponential())
    t = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, 1 - np.exp(-1), 1 - np.exp(-2)], dtype=torch.float64)
    torch.testing.assert_close(H.step(t, one)[:, 0], expected, rtol=0, atol=1e-14)
    assert (H.rate(t, one)[:2] == 0).all()


def test_a_hopelessly_large_uneven_grid_is_refused_at_once() -> None:
    t = torch.arange(10_000, dtype=torch.float64) ** 1.1
    with pytest.raises(ValueError, match="10000 unevenly spaced times, expected at most 4096"):
        ConvolutionalFunctional(kernels.sine())(torch.ones(10_000, 1), t)


@pytest.mark.parametrize("x", [torch.tensor([[1 + 1j]]), torch.tensor([[torch.nan]]), "no", [["a"]], None, torch.zeros(1, 2)])
def test_amplitudes_that_mean_nothing_are_refused_by_name(x) -> None:
    H = ConvolutionalFunctional(kernels.exponential())
    for answer in (H.rate, H.step):
        with pytest.raises(ValueError, match=r"^x "):
            answer(EVEN, x)


def test_an_empty_batch_has_an_empty_answer() -> None:
    H = ConvolutionalFunctional(kernels.exponential())
    assert H(torch.zeros(0, len(EVEN), 1), EVEN).shape == (0, len(EVEN), 1)


@pytest.mark.parametrize("rate", [1e6, 1e10])
def test_a_memory_far_shorter_than_a_step_still_weighs_the_input(rate: float) -> None:
    x = torch.ones(1, len(EVEN), 1, dtype=torch.float64)
    y = ConvolutionalFunctional(kernels.exponential(rate=rate))(x, EVEN)[0, 1:, 0]
    torch.testing.assert_close(rate * y, torch.ones_like(y), rtol=1e-9, atol=0)
    uneven = torch.cat([EVEN[:3], EVEN[4:]])
    y = ConvolutionalFunctional(kernels.exponential(rate=rate))(x[:, 1:], uneven)[0, 1:, 0]
    torch.testing.assert_close(rate * y, torch.ones_like(y), rtol=1e-9, atol=0)
