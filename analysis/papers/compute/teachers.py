"""Random models as targets: the teachers of [IA] Fig 3 and 12, and such as tell what those do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.special import zeta
from torch import Tensor, nn

from odernn.models import ContinuousRNN
from targets import Functional, TeacherFunctional, arguments

# Units of the RNNs, as published, and of those whose states do not come to rest, which take long to solve.
_UNITS, _FEW = 256, 32
# Of attention: samples of the window, penalty of a lag, and of its logarithm.
WINDOW, SLOPE, EXPONENT = 32, 0.2, 1.5
# |x| up to which layer normalisation leaves the answer nearly linear, and samples after which a step is nearly answered.
SMALL, _LONG = 0.01, 1000


def load_teacher(name: str, seed: int) -> Functional:
    """A model with random weights as a target.

    Args:
        name: of RNNs 'rnn' (rates in [0.3, 2]), 'slow-rnn', 'hardly-decaying-rnn' or 'lasting-rnn'; of transformers
            'transformer' (causal attention to the samples since t = 0), 'windowed-transformer', 'exponential-transformer' or
            'power-transformer' (which have the infinite past of zeros before t = 0, too).
        seed: of the weights.

    Raises:
        ValueError: an unknown name.
    """
    return TEACHERS[arguments.choice("teacher", name, TEACHERS)](seed)


def _rnn(seed: int) -> Functional:
    """A dense tanh RNN with the library's random weights ([IA] Fig 3)."""
    return TeacherFunctional(_tanh_rnn(seed), input_size=1, pass_times=True)


def _rnn_of_rates(slowest: float, fastest: float, seed: int) -> Functional:
    """The same with a symmetric W = P^T D P of rates log-uniform between two."""
    model, generator = _tanh_rnn(seed), torch.Generator().manual_seed(seed)
    P, _ = torch.linalg.qr(torch.randn(_UNITS, _UNITS, generator=generator, dtype=torch.float64))
    rates = slowest * (fastest / slowest) ** torch.rand(_UNITS, generator=generator, dtype=torch.float64)
    W = P.mT @ (-rates.unsqueeze(-1) * P)
    model.set_matrix((W + W.mT) / 2)
    return TeacherFunctional(model, input_size=1, pass_times=True)


def _lasting_rnn(seed: int) -> Functional:
    """One of fewer units with an antisymmetric W, for which |dh/dt| never falls to 0 (`lasting_memory.random_memory`)."""
    model, m = _tanh_rnn(seed, _FEW), _FEW
    G = torch.randn(m, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / math.sqrt(m)
    model.set_matrix(G - G.mT)
    return TeacherFunctional(model, input_size=1, pass_times=True)


def _tanh_rnn(seed: int, units: int = _UNITS) -> ContinuousRNN:
    return ContinuousRNN(1, units, 1, "tanh", "dense", "direct", bias=False, seed=seed, dtype=torch.float64)


class _Decoder(nn.Module):
    """A causal transformer layer of one head, width 16, feed-forward 32, between a linear read-in and read-out ([IA] Fig 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.read_in = nn.Linear(1, 16)
        self.layer = nn.TransformerEncoderLayer(16, 1, 32, dropout=0.0, batch_first=True)
        self.read_out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.read_out(self.layer(self.read_in(x), src_mask=mask, is_causal=True))


class _HomogeneousDecoder(_Decoder):
    """The same with attention weighted by the lag, b(k) e^{q_n . k_(n-k)}, over all samples n - k since -infinity: x = 0 before
    the first, so that all of those are one token, of weight sum_(k > n) b(k).

    Of its answer y the part that depends on the past and is odd in x,

        z(x)_n = y(x)_n - y(x_n alone)_n,    (z(x) - z(-x)) / 2:

    students without feedthrough cannot follow the present sample, and such as are odd nothing even, whatever its memory. In units
    of its answer to a small constant.

    Args:
        weights: n -> (b(0), ..., b(n - 1)) and the sums of b(k) over k > 0, ..., k > n - 1, each (n,).
    """

    def __init__(self, weights: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        self.weights = weights
        self.unit = 1.0

    def scaled(self) -> _HomogeneousDecoder:
        """With the unit set."""
        with torch.no_grad():
            step = SMALL * torch.ones(1, _LONG, 1, dtype=self.read_out.weight.dtype)
            self.unit *= float(self(step)[0, -1, 0]) / SMALL
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (self._of_the_past(x) - self._of_the_past(-x)) / (2 * self.unit)

    def _of_the_past(self, x: Tensor) -> Tensor:
        return self._answer(x) - self._answer(x.reshape(-1, 1, x.shape[-1])).reshape(*x.shape[:2], -1)

    def _answer(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        near, past = (torch.from_numpy(values).to(x).log() for values in self.weights(n))
        lag = torch.arange(n).unsqueeze(1) - torch.arange(n)
        mask = x.new_full((n + 1, n + 1), -math.inf)
        mask[1:, 1:] = torch.where(lag >= 0, near[lag.clamp(min=0)], -math.inf)
        mask[1:, 0] = past
        # The past sees itself alone.
        mask[0, 0] = 0.0
        with_past = nn.functional.pad(x, (0, 0, 1, 0))
        return self.read_out(self.layer(self.read_in(with_past), src_mask=mask))[:, 1:]


def _windowed(n: int) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(n)
    return (k < WINDOW).astype(float), np.maximum(WINDOW - 1.0 - k, 0.0)


def _exponential(n: int) -> tuple[np.ndarray, np.ndarray]:
    """b(k) = e^{-s k}: a penalty linear in the distance (ALiBi)."""
    k = np.arange(n)
    return np.exp(-SLOPE * k), np.exp(-SLOPE * (k + 1)) / -math.expm1(-SLOPE)


def _power(n: int) -> tuple[np.ndarray, np.ndarray]:
    """b(k) = (1 + k)^-p: a penalty linear in the logarithm of the distance."""
    k = np.arange(n)
    return (1.0 + k) ** -EXPONENT, zeta(EXPONENT, k + 2.0)


def _transformer(make: Callable[[], _Decoder], seed: int) -> Functional:
    """The same random weights for every kind of attention."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().double().eval()
    if isinstance(module, _HomogeneousDecoder):
        module.scaled()
    return TeacherFunctional(module, input_size=1, subtract_zero_input=True)


TEACHERS: dict[str, Callable[[int], Functional]] = {
    "rnn": _rnn,
    "slow-rnn": partial(_rnn_of_rates, 1e-3, 1.0),
    "hardly-decaying-rnn": partial(_rnn_of_rates, 1e-5, 1e-3),
    "lasting-rnn": _lasting_rnn,
    "transformer": partial(_transformer, _Decoder),
    "windowed-transformer": partial(_transformer, partial(_HomogeneousDecoder, _windowed)),
    "exponential-transformer": partial(_transformer, partial(_HomogeneousDecoder, _exponential)),
    "power-transformer": partial(_transformer, partial(_HomogeneousDecoder, _power)),
}
