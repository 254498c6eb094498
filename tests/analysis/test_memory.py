"""Memory functions: the search for the supremum, networks of the paper, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from problems import linear_kernel

from analysis.decay import fit_decay
from analysis.memory import MemoryFunction, memory_function
from odernn import ContinuousRNN, TorchDiffEq

DOUBLE = torch.float64


@pytest.mark.parametrize("d", [3, 14])
def test_vector_outputs_of_linear_systems_take_the_best_sign_vector(d):
    model = ContinuousRNN(d, 6, 2, activation="linear", seed=3, dtype=DOUBLE)
    times = torch.tensor([0.0, 1.0, 4.0], dtype=DOUBLE)
    R = linear_kernel(model, times)
    corners = torch.tensor(list(itertools.product((1.0, -1.0), repeat=d)), dtype=DOUBLE)
    best = torch.linalg.vector_norm(R @ corners.mT, dim=-2).amax(-1)
    found = memory_function(model, times).values
    # d = 3 is exhaustive; beyond 12 channels an iteration finds a local maximum
    torch.testing.assert_close(found, best, rtol=1e-12 if d == 3 else 0.05, atol=0)
    assert (found <= best * (1 + 1e-12)).all()


def test_the_search_over_directions_is_never_below_its_best_start_and_its_maximiser_attains_the_value():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(3, 3, generator=generator, dtype=DOUBLE)

    def narrow(x):
        """Responds to one direction inside a face of the cube, which no sign vector has."""
        along = x @ torch.tensor([1.0, 0.3, -0.5], dtype=DOUBLE)
        away = (x @ mix.mT).square().sum(-1) - along.square()
        y = along * torch.exp(-2 * away.clamp(min=0))
        return y.unsqueeze(-1) * 0.5 ** torch.arange(x.shape[1], dtype=DOUBLE).unsqueeze(-1)

    times = torch.arange(6, dtype=DOUBLE)
    starts = memory_function(narrow, times, input_size=3, amplitudes=[1.0], ascent_steps=0)
    climbed = memory_function(narrow, times, input_size=3, amplitudes=[1.0], ascent_steps=25)
    assert (climbed.values >= starts.values).all()
    assert float((climbed.values / starts.values).max()) > 1.2
    torch.testing.assert_close(climbed.maximizer.abs().amax(-1), torch.ones(6, dtype=DOUBLE))
    again = memory_function(narrow, times, input_size=3, amplitudes=[1.0], directions=climbed.maximizer)
    torch.testing.assert_close(again.values, climbed.values, rtol=1e-10, atol=0)


def test_a_system_without_gradients_is_searched_by_random_steps():
    def detached(x):
        return (x**3).sum(-1, keepdim=True).detach().cumsum(1)

    M = memory_function(detached, torch.arange(4.0, dtype=DOUBLE), input_size=2, amplitudes=[1.0], ascent_steps=3)
    torch.testing.assert_close(M.values, torch.full((4,), 2.0, dtype=DOUBLE))


def test_amplitudes_are_searched_and_the_maximiser_says_which_won():
    def saturating(x):
        return torch.tanh(x).cumsum(1)

    M = memory_function(saturating, torch.arange(3.0, dtype=DOUBLE), amplitudes=[0.01, 5.0])
    torch.testing.assert_close(M.values, torch.full((3,), float(np.tanh(0.01) / 0.01), dtype=DOUBLE))
    torch.testing.assert_close(M.maximizer.abs(), torch.full((3, 1), 0.01, dtype=DOUBLE))


def test_the_law_of_a_saturating_unit_is_that_of_the_amplitudes():
    """dh/dt = tanh(x - h): a step of size |x| takes a time |x| to pass. In closed form, y = x - h has sinh y = sinh x e^-t."""
    unit = ContinuousRNN(1, 1, 1, "tanh", bias=False, dtype=DOUBLE)
    unit.set_matrix(torch.tensor([[-1.0]]))
    with torch.no_grad():
        unit.c.fill_(1.0)
        unit.layers[0].U.fill_(1.0)
    times = torch.tensor([0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0], dtype=DOUBLE)
    small, large = memory_function(unit, times[:5]), memory_function(unit, times, max_amplitude=1e3)
    assert small.amplitudes == (0.1, 1.0)
    assert (large.amplitudes[0], large.amplitudes[-1]) == pytest.approx((0.1, 1e3))
    assert max(b / a for a, b in itertools.pairwise(large.amplitudes)) < 1.42

    def closed(amplitudes, t):
        x = np.array(amplitudes)[:, None]
        # asinh(sinh x e^-t), x - t where that is large, without overflow
        log = x - t + np.log1p(-np.exp(-2 * x)) - math.log(2)
        y = np.where(log > 20, log + math.log(2), np.arcsinh(np.exp(np.minimum(log, 20))))
        return (np.tanh(y) / x).max(0)

    np.testing.assert_allclose(small.values, closed(small.amplitudes, times[:5].numpy()), rtol=1e-6, atol=float(small.floor))
    np.testing.assert_allclose(large.values, closed(large.amplitudes, times.numpy()), rtol=1e-6)
    # The default amplitudes forget like e^-t, and all of them like 1/t.
    assert float(small.values[3] / small.values[2]) == pytest.approx(math.exp(-7), rel=0.02)
    late = times.numpy()[3:]
    slope = np.polyfit(np.log(late), np.log(large.values.numpy()[3:]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert float(large.values[3] / small.values[3]) > 100


def test_the_result_names_the_amplitudes_of_its_supremum():
    linear = memory_function(ContinuousRNN(1, 2, 1, "linear", seed=0, dtype=DOUBLE), torch.arange(3.0))
    assert linear.amplitudes is None
    assert linear.amplitudes_text == "all |x|"
    M = memory_function(lambda x: torch.tanh(x).cumsum(1), torch.arange(3.0, dtype=DOUBLE), amplitudes=[5.0, 0.01])
    assert M.amplitudes == (0.01, 5.0)
    assert M.amplitudes_text == "|x| = 0.01, 5"
    bounded = memory_function(lambda x: torch.tanh(x).cumsum(1), torch.arange(3.0, dtype=DOUBLE), max_amplitude=0.02)
    assert bounded.amplitudes == (0.02,)
    # Earlier versions did not write them.
    old = {name: value for name, value in M.to_dict().items() if name != "amplitudes"}
    assert MemoryFunction.from_dict(old).amplitudes is None
    with pytest.raises(ValueError, match="both came"):
        memory_function(lambda x: x, torch.arange(3.0), amplitudes=[1.0], max_amplitude=1.0)
    with pytest.raises(ValueError, match="max_amplitude"):
        memory_function(lambda x: x, torch.arange(3.0), max_amplitude=-1.0)


def test_random_recurrent_networks_forget_exponentially_and_alike_under_both_probes():
    """[IA] Fig 10 at small inputs; the full measurement has 20 seeds and 1 to 4 layers."""
    times = torch.arange(120, dtype=DOUBLE)
    mismatch = []
    for kind, layers, seed in itertools.product(("RNN", "GRU", "LSTM"), (1, 3), range(4)):
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(1, 64, layers, batch_first=True, dtype=DOUBLE)
        fits = [
            fit_decay(memory_function(module, times, probe=probe, amplitudes=[0.1], warmup=100))
            for probe in ("heaviside", "impulse")
        ]
        assert all(fit.ends_exponentially for fit in fits), (kind, layers, seed)
        one, other = (fit.rate for fit in fits)
        mismatch.append(abs(one - other) / max(one, other))
    assert np.median(mismatch) <= 0.10


def test_the_two_probes_part_at_large_inputs():
    times = torch.arange(120, dtype=DOUBLE)
    module = torch.nn.RNN(1, 64, batch_first=True, dtype=DOUBLE)
    rates = {}
    for amplitude, probe in itertools.product((0.1, 10.0), ("heaviside", "impulse")):
        M = memory_function(module, times, probe=probe, amplitudes=[amplitude], warmup=100)
        rates[amplitude, probe] = fit_decay(M).rate
    assert rates[0.1, "heaviside"] == pytest.approx(rates[0.1, "impulse"], rel=0.02)
    assert rates[10.0, "heaviside"] > 1.2 * rates[10.0, "impulse"]


def test_a_tanh_network_on_its_periodic_orbit_does_not_forget():
    """[IA] Fig 11b: v = dh/dt of W = [[1, 1], [-4, -3]] has the attractor 0 and an (unstable) periodic orbit round it."""
    model = ContinuousRNN(1, 2, 2, activation="tanh", bias=False, dtype=DOUBLE)
    model.set_matrix(torch.tensor([[1.0, 1.0], [-4.0, -3.0]]))
    # Where the orbit crosses v_1 = 0: u = W h + U x = (0, 5.375...), by integrating backwards in time, where the orbit attracts
    # (SciPy's DOP853 at rtol 1e-11; period 26.3207).
    on_the_orbit = torch.tensor([[0.0], [5.375279730]], dtype=DOUBLE)
    times = torch.linspace(0, 100, 401, dtype=DOUBLE)
    fits = {}
    for scale in (0.8, 1.0):
        with torch.no_grad():
            model.layers[0].U.copy_(scale * on_the_orbit)
            model.c.copy_(torch.eye(2, dtype=DOUBLE))
        fits[scale] = fit_decay(memory_function(model, times, amplitudes=[1.0]))
    assert fits[1.0].law == "none", fits[1.0].describe()
    assert fits[0.8].law == "exponential"
    assert fits[0.8].rate == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("make", [torch.arange, lambda n: list(range(n)), np.arange])
def test_times_in_whole_numbers_lists_and_arrays_mean_the_same(make):
    for system in (ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64), torch.nn.LSTM(1, 2), lambda x: x.cumsum(1)):
        expected = memory_function(system, torch.arange(6, dtype=torch.float64))
        torch.testing.assert_close(memory_function(system, make(6)).values, expected.values)


def test_lists_of_times_keep_double_precision():
    assert memory_function(lambda x: x.cumsum(1), [0.0, 0.1, 0.2]).times.dtype == torch.float64


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (torch.nn.LSTM(1, 3, bidirectional=True), {}, "bidirectional LSTM is not causal"),
        (lambda x: x.flip(1), {}, "not causal"),
        (lambda x: x[:, -1], {}, "expected .batch, time, channel."),
        (lambda x: "no", {}, "returned a str"),
        (torch.nn.Linear(3, 1), {}, "input_size"),
        (torch.nn.LSTM(2, 3), {"input_size": 3}, "input_size is 3"),
        (3, {}, "a int has no memory function"),
        (torch.nn.GRU(1, 2), {"probe": "dirac"}, "unknown probe 'dirac'"),
        (torch.nn.GRU(1, 2), {"amplitudes": [0.0]}, "amplitudes must be positive"),
        (torch.nn.GRU(1, 2), {"amplitudes": []}, "amplitudes must be positive"),
        (torch.nn.GRU(1, 2), {"warmup": -1.0}, "warmup"),
        (torch.nn.GRU(1, 2), {"hold": 0.0}, "hold"),
        (torch.nn.GRU(1, 2), {"directions": torch.zeros(1, 1)}, "not 0"),
        (torch.nn.GRU(1, 2), {"directions": torch.ones(1, 2)}, "must be .n, 1."),
        (torch.nn.GRU(1, 2), {"solver": TorchDiffEq()}, "solver is for the continuous models"),
        (torch.nn.GRU(1, 2), {"dt": 0.3}, "multiples of its sample time"),
        (torch.nn.GRU(1, 2), {"times": torch.tensor([0.0, 0.0])}, "increasing"),
        (torch.nn.GRU(1, 2), {"times": torch.tensor([-2.0, -1.0])}, "before 0"),
    ],
)
def test_bad_input_is_refused_with_the_reason(system, options, message):
    options = {"times": torch.arange(5.0)} | options
    with pytest.raises(ValueError, match=message):
        memory_function(system, options.pop("times"), **options)


@pytest.mark.parametrize("index", [None, 1.5, "a", [1], True, (0, 0), 7])
def test_members_that_are_not_there_are_refused(index):
    M = memory_function(ContinuousRNN(1, 2, 1, "linear", ensemble=(2,), seed=0, dtype=torch.float64), torch.arange(5.0))
    with pytest.raises((ValueError, IndexError), match="member"):
        M[index]


def test_times_of_a_clock_are_refused():
    model = ContinuousRNN(1, 3, 1, seed=0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"begin at 1\.7e\+09 and span 10: .* give times - times"):
        memory_function(model, 1.7e9 + torch.linspace(0, 10, 101, dtype=torch.float64))
