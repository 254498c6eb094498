from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch.func import jacfwd

from analysis import Correlated, OrnsteinUhlenbeck, WhiteNoise, mode_moments
from analysis.sensitivity.modes import pair_moments

# PyTorch's own forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

Z = torch.tensor([0.3, -0.55, 0.93], dtype=torch.float64)
COMPLEX = torch.polar(torch.tensor([0.35, 0.8, 0.95], dtype=torch.float64), torch.tensor([0.4, 2.1, 1.3], dtype=torch.float64))


@pytest.mark.parametrize("r", [0.0, 0.37, -0.6, 0.98, 1.0])
def test_moments_of_maps_are_the_published_ones(r):
    """[VEG] Eqs. 5 and 6 with R(d) = r^d, in the form of their code."""
    found = mode_moments(Z, Correlated(r), "discrete")
    torch.testing.assert_close(found.state, (1 + r * Z) / ((1 - r * Z) * (1 - Z**2)))
    sensitivity = ((1 + Z**2) * (1 - (r * Z) ** 2) + 2 * (1 - Z**2) * Z * r) / ((1 - Z**2) ** 3 * (1 - r * Z) ** 2)
    torch.testing.assert_close(found.sensitivity, sensitivity)


def double_sum(z, R, count=700):
    """sum_ij k_i conj(k_j) R(i - j) of the impulse response and of its derivative by autograd, along the modulus."""
    k = torch.arange(count, dtype=torch.float64)

    def response(n):
        return torch.stack([n**k * torch.cos(z.angle() * k), n**k * torch.sin(z.angle() * k)], -1)

    h, S = torch.view_as_complex(response(z.abs())), torch.view_as_complex(jacfwd(response)(z.abs()))
    lags = (k[:, None] - k).abs().long()
    covariance = torch.where(lags < len(R), torch.tensor(R, dtype=torch.float64)[lags.clamp(max=len(R) - 1)], 0.0).to(h)
    return tuple(float((a.conj() @ covariance @ a).real) for a in (h, S))


@pytest.mark.parametrize("R", [[1.0], [2.0, 0.7], [1.5, -0.2, 0.3]], ids=["white", "two", "three"])
def test_moments_of_any_autocorrelation_are_those_of_impulse_responses(R):
    found = mode_moments(COMPLEX, Correlated(R), "discrete")
    for k, z in enumerate(COMPLEX):
        state, sensitivity = double_sum(z, R)
        assert float(found.state[k]) == pytest.approx(state, rel=1e-10)
        assert float(found.sensitivity[k]) == pytest.approx(sensitivity, rel=1e-10)


def test_a_geometric_autocorrelation_is_its_list_and_the_samples_of_an_ornstein_uhlenbeck_process():
    r, step = 0.8, 0.3
    sampled = OrnsteinUhlenbeck(-step / math.log(r))
    geometric = mode_moments(COMPLEX, Correlated(r), "discrete")
    for noise in (Correlated([r**d for d in range(300)]), sampled):
        found = mode_moments(COMPLEX, noise, "discrete", step)
        torch.testing.assert_close(found.state, geometric.state)
        torch.testing.assert_close(found.sensitivity, geometric.sensitivity)


@pytest.mark.parametrize("timescale", [None, 0.2, 3.0])
@pytest.mark.parametrize("z", [-0.7, -0.05 + 0.4j, -2.0 - 3.0j])
def test_moments_in_continuous_time_are_integrals_of_spectra(z, timescale):
    noise = WhiteNoise() if timescale is None else OrnsteinUhlenbeck(timescale)

    def spectrum(w):
        return 1.0 if timescale is None else 2 / timescale / (timescale**-2 + w**2)

    def integral(gain):
        """over all frequencies w = tan(phi) + Im z"""

        def integrand(phi):
            w = math.tan(phi) + z.imag
            return spectrum(w) * abs(gain(1j * w)) ** 2 / math.cos(phi) ** 2

        return quad(integrand, -math.pi / 2, math.pi / 2, epsabs=1e-12, epsrel=1e-10, limit=400)[0] / (2 * math.pi)

    z = complex(z)
    found = mode_moments(torch.tensor([z], dtype=torch.complex128), noise)
    assert float(found.state[0]) == pytest.approx(integral(lambda s: 1 / (s - z)), rel=1e-7)
    assert float(found.sensitivity[0]) == pytest.approx(integral(lambda s: 1 / (s - z) ** 2), rel=1e-7)


def test_a_constant_input_is_the_limit_of_long_correlations():
    found = mode_moments([-0.2], OrnsteinUhlenbeck(math.inf))
    assert (float(found.state), float(found.sensitivity)) == pytest.approx((0.2**-2, 0.2**-4))
    torch.testing.assert_close(mode_moments([-0.2], OrnsteinUhlenbeck(1e9)).sensitivity, found.sensitivity)


@pytest.mark.parametrize(
    ("time", "z", "noise"),
    [
        ("discrete", [0.3, -0.55, 0.93], Correlated(0.7)),
        ("discrete", [0.3, -0.55, 0.93], Correlated([1.0, 0.4])),
        ("continuous", [-0.3, -0.02, -2.0], OrnsteinUhlenbeck(4.0)),
        ("continuous", [-0.3, -0.02, -2.0], WhiteNoise()),
    ],
)
def test_moments_of_derivatives_are_derivatives_of_moments(time, z, noise):
    z = torch.tensor(z, dtype=torch.float64)
    P = len(z)

    def hh(left, right):
        """E h_i h_j with the poles of i and of j apart."""
        both = torch.cat([left, right])
        return pair_moments(torch.complex(both, torch.zeros_like(both)), noise, time).hh.real[:P, P:]

    first = jacfwd(hh, 0)(z, z)
    second = jacfwd(jacfwd(hh, 0), 1)(z, z)
    moments = pair_moments(torch.complex(z, torch.zeros_like(z)), noise, time)
    index = torch.arange(P)
    torch.testing.assert_close(moments.Sh.real, first[index, :, index])
    torch.testing.assert_close(moments.SS.real, second[index[:, None], index, index[:, None], index])


@pytest.mark.parametrize(("time", "z"), [("continuous", [-0.1, 0.0, 0.2]), ("discrete", [0.9, 1.0, -1.3])])
def test_a_mode_that_does_not_decay_has_infinite_moments(time, z):
    found = mode_moments(z, WhiteNoise(), time)
    for moment in (found.state, found.sensitivity):
        assert torch.isfinite(moment).tolist() == [True, False, False]
        assert not (moment == -math.inf).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Correlated(1.01), "R is 1.01, expected a number in"),
        (lambda: Correlated([1.0, 0.9]), r"R is \[1, 0.9\], expected R\(0\) > 0"),
        (lambda: Correlated([]), "expected R"),
        (lambda: Correlated("white"), "R is 'white'"),
        (lambda: OrnsteinUhlenbeck(0.0), "timescale is 0"),
        (lambda: mode_moments([-1.0], Correlated(0.5)), "for maps"),
        (lambda: mode_moments([-1.0], 0.5), "noise is a float"),
        (lambda: mode_moments([-1.0], WhiteNoise(), "sampled"), "unknown time"),
        (lambda: mode_moments([math.nan]), "NaN"),
    ],
)
def test_what_is_no_noise_or_mode_is_refused_in_a_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_white_noise_gives_the_simplest_forms():
    rates = np.array([1e-6, 0.3])
    found = mode_moments(-rates)
    np.testing.assert_allclose(found.state, 1 / (2 * rates))
    np.testing.assert_allclose(found.sensitivity, 1 / (4 * rates**3))
