"""Laws of decay that were held out: families with random parameters, read by `fit_decay` through random windows.

`python -m tests.campaigns decay --seed 2` prints, for each family, how many were tried, right, undecided and wrong;
`python -m tests.campaigns.decay 6 7` writes docs/held_out/decay.md from these seeds. The limits in `analysis.decay` were set
while looking at seed 1, and earlier versions looked at on seeds 2 and 3.

A law is right if it is the one the values were made by, or the same in the end: a sum of exponentials, t^k e^{-rt} or a tempered
power law may be named "exponential", "gamma", "tempered" or "two exponentials" with the rate of its slowest part. It is wrong if
it is another, or if its number is off by more than three standard errors and 5 %. Of two families no law is among those that
are named.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.decay import EXPONENTIAL_END, fit_decay
from analysis.memory import memory_function
from analysis.probes import dynamics
from odernn.models import ContinuousRNN
from tests.campaigns.campaign import Outcomes

WINDOWS, POINTS, NOISES = (10.0, 30.0, 100.0, 1000.0), (31, 101, 1001), (0.0, 0.01, 0.05)
TABLE = Path(__file__).parents[2] / "docs" / "held_out" / "decay.md"
Rng = np.random.Generator


@dataclass(frozen=True)
class Truth:
    """How the values were made.

    laws: names that are right; none where no law of the family is.
    number: rate or exponent; None for a constant.
    easy: whether the window shows the law: five e-foldings of the slowest part, or ten scales.
    """

    values: Callable[[Any], Any]
    laws: tuple[str, ...]
    number: float | None
    easy: bool
    text: str


def _between(rng: Rng, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _exponential(rng: Rng, T: float) -> Truth:
    r = _between(rng, 1, 100) / T
    return Truth(lambda t: np.exp(-r * t), EXPONENTIAL_END, r, r * T >= 5, f"r = {r:.3g}")


def _sum(rng: Rng, T: float) -> Truth:
    count = int(rng.integers(2, 5))
    slowest = _between(rng, 1, 60) / T
    rates = slowest * np.array([1.0, *(_between(rng, 1.5, 30) for _ in range(count - 1))])
    weights = np.array([_between(rng, 0.1, 10) for _ in range(count)])
    text = f"rates {np.round(rates, 4)}, weights {np.round(weights, 3)}"
    return Truth(lambda t: np.exp(-np.multiply.outer(t, rates)) @ weights, EXPONENTIAL_END, slowest, slowest * T >= 5, text)


def _gamma(rng: Rng, T: float) -> Truth:
    k, r = int(rng.integers(1, 5)), _between(rng, 3, 60) / T
    return Truth(lambda t: t**k * np.exp(-r * t), EXPONENTIAL_END, r, r * T >= 5 + k, f"k = {k}, r = {r:.3g}")


def _shifted_gamma(rng: Rng, T: float) -> Truth:
    p, r, s = rng.uniform(0.5, 4), _between(rng, 3, 60) / T, _between(rng, 0.003, 0.1) * T
    text = f"p = {p:.3g}, r = {r:.3g}, s = {s:.3g}"
    return Truth(lambda t: (1 + t / s) ** p * np.exp(-r * t), EXPONENTIAL_END, r, r * T >= 5 + p, text)


def _power(rng: Rng, T: float) -> Truth:
    p, s = _between(rng, 0.5, 8), _between(rng, 0.001, 0.3) * T
    return Truth(lambda t: (1 + t / s) ** -p, ("power",), p, T / s >= 10, f"p = {p:.3g}, s = {s:.3g}")


def _stretched(rng: Rng, T: float) -> Truth:
    beta, decline = rng.uniform(0.3, 1.5), _between(rng, 2, 60)
    r = decline ** (1 / beta) / T
    return Truth(lambda t: np.exp(-((r * t) ** beta)), ("stretched",), beta, decline >= 5, f"beta = {beta:.3g}, r = {r:.3g}")


def _tempered(rng: Rng, T: float) -> Truth:
    p, r, s = rng.uniform(0.5, 3), _between(rng, 1, 30) / T, _between(rng, 0.003, 0.1) * T
    text = f"p = {p:.3g}, r = {r:.3g}, s = {s:.3g}"
    return Truth(lambda t: (1 + t / s) ** -p * np.exp(-r * t), EXPONENTIAL_END, r, r * T >= 5, text)


def _oscillating(rng: Rng, T: float) -> Truth:
    # two maxima of |cos| a period; how many the samples show is left to chance
    r, periods, phase = _between(rng, 1, 30) / T, _between(rng, 4, 40), rng.uniform(0, math.pi)
    w = 2 * math.pi * periods / T
    text = f"r = {r:.3g}, {periods:.3g} periods"
    return Truth(lambda t: np.exp(-r * t) * np.abs(np.cos(w * t + phase)), ("exponential",), r, r * T >= 5, text)


def _constant(rng: Rng, T: float) -> Truth:
    c, r = _between(rng, 1e-3, 0.5), _between(rng, 5, 60) / T
    return Truth(lambda t: c + np.exp(-r * t), ("none",), None, r * T + math.log(c) >= 5, f"c = {c:.3g}, r = {r:.3g}")


def _logarithmic(rng: Rng, T: float) -> Truth:
    s = _between(rng, 0.001, 0.3) * T
    return Truth(lambda t: np.log(math.e + t / s) ** -2.0, (), None, False, f"s = {s:.3g}")


def _gaussian(rng: Rng, T: float) -> Truth:
    s = T / _between(rng, 1.5, 6)
    return Truth(lambda t: np.exp(-((t / s) ** 2)), ("stretched",), 2.0, T / s >= 2, f"s = {s:.3g}")


def _lognormal(rng: Rng, T: float) -> Truth:
    s = _between(rng, 0.003, 0.1) * T
    return Truth(lambda t: np.exp(-(np.log1p(t / s) ** 2) / 2), (), None, False, f"s = {s:.3g}")


def _broken_power(rng: Rng, T: float) -> Truth:
    s = _between(rng, 0.003, 0.03) * T
    text = f"s = {s:.3g}"
    return Truth(lambda t: (1 + t / s) ** -0.5 * (1 + t / (10 * s)) ** -1.5, ("power",), 2.0, False, text)


def _two_powers(rng: Rng, T: float) -> Truth:
    s = _between(rng, 0.003, 0.03) * T
    return Truth(lambda t: (1 + t / s) ** -3.0 + 0.1 * (1 + t / s) ** -0.5, ("power",), 0.5, False, f"s = {s:.3g}")


FAMILIES: dict[str, Callable[[Rng, float], Truth]] = {
    "e^-rt": _exponential,
    "2 to 4 exponentials": _sum,
    "t^k e^-rt, k = 1 to 4": _gamma,
    "(1+t/s)^p e^-rt, p to 4": _shifted_gamma,
    "(1+t/s)^-p, p = .5 to 8": _power,
    "e^-(rt)^b, b = .3 to 1.5": _stretched,
    "(1+t/s)^-p e^-rt": _tempered,
    "e^-rt |cos|": _oscillating,
    "c + e^-rt": _constant,
    "1/log(e+t/s)^2": _logarithmic,
    "e^-(t/s)^2": _gaussian,
    "e^-log(1+t/s)^2/2": _lognormal,
    "power .5, then 2": _broken_power,
    "powers 3 and .5": _two_powers,
}


def _network(rng: Rng) -> tuple[Any, Truth]:
    """A random torch network of one layer, whose impulse response at a small input has the modes of its Jacobian at rest."""
    kind, units, seed = str(rng.choice(["RNN", "GRU", "LSTM"])), int(rng.choice([8, 32, 64])), int(rng.integers(2**31))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(1, units, batch_first=True, dtype=torch.float64)
    step = dynamics(module)
    x = torch.zeros(1, 1, dtype=torch.float64)
    h = step.rest().unsqueeze(0)
    for _ in range(300):
        h = step(h, x)
    rate = float(-torch.linalg.eigvals(step.jacobian(h, x)).abs().amax().log())
    M = memory_function(module, torch.arange(200.0, dtype=torch.float64), probe="impulse", amplitudes=[0.01], warmup=300)
    return M, Truth(lambda t: t, EXPONENTIAL_END, rate, True, f"{kind}, {units} units, seed {seed}, rate {rate:.4g}")


def _jordan(rng: Rng) -> tuple[Any, Truth]:
    """A linear RNN with one Jordan block."""
    size, r, T = int(rng.integers(2, 5)), rng.uniform(0.2, 2.0), float(rng.choice([30.0, 100.0]))
    model = ContinuousRNN(1, size, 1, "linear", bias=False, dtype=torch.float64)
    model.set_matrix(-r * torch.eye(size, dtype=torch.float64) + torch.diag(torch.ones(size - 1, dtype=torch.float64), 1))
    with torch.no_grad():
        model.layer_weights[0].U.copy_(torch.tensor(rng.standard_normal((size, 1))))
        model.c.copy_(torch.tensor(rng.standard_normal((1, size))))
    M = memory_function(model, torch.linspace(0, T, 301, dtype=torch.float64))
    return M, Truth(lambda t: t, EXPONENTIAL_END, float(r), True, f"block of {size}, r = {r:.3g}, T = {T:g}")


SYSTEMS: dict[str, Callable[[Rng], tuple[Any, Truth]]] = {"random RNN, GRU, LSTM": _network, "linear RNN, Jordan block": _jordan}


def cases(seed: int, size: int) -> Iterator[tuple[str, Truth, Any, str, bool]]:
    """(family, truth, what is read, settings, whether it is easy), `size` of each family and a quarter of that of each system."""
    for index, (name, family) in enumerate(FAMILIES.items()):
        rng = np.random.default_rng([seed, index])
        for _ in range(size):
            T, n, noise = float(rng.choice(WINDOWS)), int(rng.choice(POINTS)), float(rng.choice(NOISES))
            even = name == "e^-rt |cos|" or bool(rng.random() < 0.5)
            t = np.linspace(0, T, n) if even else np.geomspace(1e-3 * T, T, n)
            truth = family(rng, T)
            values = truth.values(t) * np.abs(1 + noise * rng.standard_normal(n))
            settings = f"{truth.text}; [0, {T:g}], {n} {'even' if even else 'log-spaced'} points, noise {noise:g}"
            yield name, truth, (t, values), settings, truth.easy and n > 31 and noise < 0.05
    for index, (name, system) in enumerate(SYSTEMS.items()):
        rng = np.random.default_rng([seed, 100 + index])
        for _ in range(max(1, size // 4)):
            M, truth = system(rng)
            yield name, truth, M, truth.text, True


def judge(truth: Truth, fit: Any) -> tuple[str, bool]:
    """("right", "undecided" or "wrong", whether the number is within three standard errors)."""
    if fit.law == "undecided":
        return "undecided", True
    number = fit.rate if fit.ends_exponentially else fit.exponent
    if fit.law not in truth.laws:
        return "wrong", True
    if truth.number is None:
        return "right", True
    off = abs(number - truth.number)
    covered = off <= 3 * fit.stderr
    return "right" if covered or off <= 0.05 * truth.number else "wrong", covered


@dataclass
class Findings(Outcomes):
    """wrong: one line for each law that was named wrongly."""

    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Decay:
    name: str = "decay"
    full: int = 300
    short: int = 8

    def run(self, seed: int, size: int) -> Findings:
        """Failures: a family of ours of which more than a tenth is named wrongly. Single wrong names stand in the table."""
        outcomes = Findings()
        for family, truth, M, settings, easy in cases(seed, size):
            fit = fit_decay(M)
            outcome, covered = judge(truth, fit)
            outcomes.count(family, outcome)
            if outcome == "wrong":
                outcomes.wrong.append(f"{family}: {settings}: {fit.describe()}")
            if outcome != "undecided" and truth.laws:
                outcomes.count(family, "within 3 stderr" if covered else "beyond 3 stderr")
            if easy:
                outcomes.count(family, "easy undecided" if outcome == "undecided" else "easy decided")
        for family, row in outcomes.table.items():
            tried = row["right"] + row["undecided"] + row["wrong"]
            if row["wrong"] > 1 + (1.0 if family in UNNAMED else 0.1) * tried:
                outcomes.failures.append(f"{family}: {row['wrong']} of {tried} named wrongly")
        return outcomes


CAMPAIGNS = (Decay(),)
UNNAMED = ("1/log(e+t/s)^2", "e^-log(1+t/s)^2/2")
_COLUMNS = ("right", "undecided", "wrong", "beyond 3 stderr", "easy decided", "easy undecided")
_HEAD = """# Held-out laws of decay

`python -m tests.campaigns.decay {seeds}`: seeds {seeds} of `tests/campaigns/decay.py`, {size} curves of each family
and {systems} of each system a seed. Windows [0, 10] to [0, 1000]; 31, 101 or 1001 points, even or log-spaced; noise 0, 1
or 5 %; parameters drawn at random, so that many windows are too short to tell. The limits of `analysis.decay` were set on seed 1;
earlier versions were looked at on seeds 2 and 3.

right: the law, or one that ends the same, with its rate or exponent within three standard errors or 5 %. wrong: another law, or a
number outside of both. beyond 3 stderr: of those named, numbers outside of three standard errors. easy: at least 101 points,
noise of 1 % at most, and five e-foldings of the slowest part or ten scales in the window. Of the families marked * no law is
among those that are named, so that undecided is the right answer; a power law that no window of that noise tells from a power of
a logarithm keeps its name. A stretched exponent within a tenth of 1 passes for an exponential under noise: these
count as wrong.

"""


def table(seeds: list[int], size: int) -> str:
    """The held-out table in Markdown, with every wrong name."""
    runs = [Decay().run(seed, size) for seed in seeds]
    text = _HEAD.format(seeds=" ".join(map(str, seeds)), size=size, systems=max(1, size // 4))
    text += "| family | tried | " + " | ".join(_COLUMNS) + " |\n|---|" + "---:|" * (len(_COLUMNS) + 1) + "\n"
    for family in runs[0].table:
        counts = {name: sum(run.table[family][name] for run in runs) for name in _COLUMNS}
        tried = counts["right"] + counts["undecided"] + counts["wrong"]
        name = family.replace("|", "\\|") + (" *" if family in UNNAMED else "")
        text += f"| {name} | {tried} | " + " | ".join(str(counts[column]) for column in _COLUMNS) + " |\n"
    text += "\nNamed wrongly, of the families and systems that have a law:\n\n"
    lines = [line for run in runs for line in run.wrong if not line.startswith(UNNAMED)]
    return text + "".join(f"- {line}\n" for line in lines)


if __name__ == "__main__":
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table([int(seed) for seed in sys.argv[1:]] or [6, 7], 150))
