from __future__ import annotations

import numpy as np
import pytest
import torch

from targets import INPUTS, inputs

T = torch.linspace(0, 10, 51, dtype=torch.float64)
UNEVEN = torch.tensor([0.0, 0.1, 0.5, 0.6, 1.5, 3.0], dtype=torch.float64)
MANY = 20_000  # sequences: an average over them is good to 1/sqrt(20000) = 0.007


def correlation(x: torch.Tensor) -> np.ndarray:
    """Covariance between times of an ensemble (batch, time, 1) of mean zero."""
    return (x[..., 0].T @ x[..., 0] / len(x)).numpy()


@pytest.mark.parametrize("name", INPUTS)
def test_every_ensemble_has_unit_variance_and_mean_zero(name: str) -> None:
    x = inputs.get(name)(UNEVEN, MANY, seed=1)
    np.testing.assert_allclose(x.mean(dim=0), 0, atol=0.03)
    np.testing.assert_allclose(x.square().mean(dim=0), 1, atol=0.05)
    np.testing.assert_allclose(inputs.get(name)(UNEVEN, MANY, seed=1, amplitude=2.5), 2.5 * x, rtol=1e-12)


@pytest.mark.parametrize("name", INPUTS)
def test_channels_and_sequences_are_independent(name: str) -> None:
    x = inputs.get(name)(UNEVEN, MANY, channels=2, seed=2)
    assert x.shape == (MANY, len(UNEVEN), 2)
    assert abs((x[:, 3, 0] * x[:, 3, 1]).mean()) < 0.03
    assert abs((x[1:, 3, 0] * x[:-1, 3, 0]).mean()) < 0.03


@pytest.mark.parametrize("name", INPUTS)
def test_a_seed_gives_the_same_inputs_again_in_every_dtype(name: str) -> None:
    draw = inputs.get(name)
    x = draw(T, 3, channels=2, seed=7)
    assert x.shape == (3, 51, 2)
    assert x.dtype == torch.float64
    assert torch.equal(x, draw(T, 3, channels=2, seed=7))
    assert torch.equal(x, draw(T, 3, channels=2, seed=torch.Generator().manual_seed(7)))
    assert not torch.allclose(x, draw(T, 3, channels=2, seed=8))
    single = draw(T.float(), 3, channels=2, seed=7)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.double(), x, atol=1e-4)  # float32 times of float64 noise


@pytest.mark.parametrize("name", INPUTS)
def test_a_generator_is_advanced_and_the_global_one_is_not(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.get_rng_state()
    first, second = (inputs.get(name)(T, 2, seed=generator) for _ in range(2))
    assert not torch.allclose(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_white_noise_is_uncorrelated_in_time() -> None:
    np.testing.assert_allclose(correlation(inputs.white_noise(UNEVEN, MANY)), np.eye(len(UNEVEN)), atol=0.04)


def test_ornstein_uhlenbeck_forgets_exponentially_on_uneven_times() -> None:
    lags = np.abs(UNEVEN.numpy()[:, None] - UNEVEN.numpy())
    x = inputs.ornstein_uhlenbeck(UNEVEN, MANY, timescale=2.0)
    np.testing.assert_allclose(correlation(x), np.exp(-lags / 2), atol=0.04)


def test_gaussian_process_has_its_covariance_on_uneven_times() -> None:
    lags = np.abs(UNEVEN.numpy()[:, None] - UNEVEN.numpy())
    x = inputs.gaussian_process(UNEVEN, MANY, length_scale=0.8)
    np.testing.assert_allclose(correlation(x), np.exp(-(lags**2) / (2 * 0.64)), atol=0.04)


def test_a_gaussian_process_sampled_densely_stays_smooth() -> None:
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    x = inputs.gaussian_process(t, 4, length_scale=1.0)
    # third differences of a smooth path are of order dt^3 = 2e-8; jitter of 1e-6 on the diagonal would make 1e-3
    assert x.diff(n=3, dim=1).abs().max() < 1e-5


def test_random_fourier_of_one_length_scale_has_the_covariance_of_a_gaussian_process() -> None:
    lags = np.abs(UNEVEN.numpy()[:, None] - UNEVEN.numpy())
    x = inputs.random_fourier(UNEVEN, MANY, length_scales=(0.8, 0.8))
    np.testing.assert_allclose(correlation(x), np.exp(-(lags**2) / (2 * 0.64)), atol=0.04)


def test_random_fourier_mixes_slow_and_fast_sequences() -> None:
    t = torch.linspace(0, 30, 3001, dtype=torch.float64)
    x = inputs.random_fourier(t, 300, seed=3)
    speed = (x.diff(dim=1) / 0.01).square().mean(dim=(1, 2)).sqrt()  # about 1/l for each sequence
    slow, fast = speed.quantile(0.1), speed.quantile(0.9)
    assert fast / slow > 20  # a tenth and nine tenths of log-uniform [0.3, 30] lie a factor 40 apart


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"channels": 0}, "channels is 0"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"amplitude": float("inf")}, "amplitude is inf"),
        ({"t": T.flip(0)}, "t is not increasing"),
        ({"t": torch.tensor([0.0, float("nan")])}, r"t\[1\] is not finite"),
        ({"t": T[None]}, "t has shape"),
        ({"t": torch.arange(3)}, "t is a torch.int64 tensor"),
        ({"t": [0.0, 1.0]}, "t is a list"),
    ],
)
@pytest.mark.parametrize("name", INPUTS)
def test_wrong_arguments_are_refused_by_every_ensemble(name: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inputs.get(name)(**({"t": T, "batch": 2} | arguments))


def test_wrong_scales_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="timescale is 0"):
        inputs.ornstein_uhlenbeck(T, 2, timescale=0)
    with pytest.raises(ValueError, match="length_scale is -1"):
        inputs.gaussian_process(T, 2, length_scale=-1)
    with pytest.raises(ValueError, match="use random_fourier"):
        inputs.gaussian_process(torch.arange(5000.0), 2)
    with pytest.raises(ValueError, match="length_scales are"):
        inputs.random_fourier(T, 2, length_scales=(3.0, 0.3))
    with pytest.raises(ValueError, match="features is 0"):
        inputs.random_fourier(T, 2, features=0)
    with pytest.raises(ValueError, match="unknown input 'pink', expected one of white_noise, ornstein_uhlenbeck"):
        inputs.get("pink")
