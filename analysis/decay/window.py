"""A window of samples with the laws fitted to it: how far each is from describing it, and the evidence between them."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .laws import COMPOUND, LawFit, fit_law

Array = NDArray[np.float64]

FEWEST_POINTS = 8
# Laws of four parameters need some more.
_FEWEST_COMPOUND = 12
# A memory that falls by less than 10 % over the window does not decay as far as the window can tell.
NO_DECLINE = 0.1
# A law is exact on a window if the root mean square of its residual is noise (within this factor) and no residual is more than
# four times that; it comes near if the residual is this part of the decline.
_NOISE_FACTOR = 1.5
# ... a factor that grows by this / sqrt(points), as the estimate of the noise is less certain.
_FEW = 2.0
_RESIDUAL_SHARE = 0.01
_WORST_RESIDUAL = 4.0
# The residuals of an exact law are noise, so that this part of them counts as independent.
_INDEPENDENT_SHARE = 1 / 3
# Nor do they hold a slow wave: one of so many is no noise if noise shows it with this probability.
_WAVES, _UNLIKELY = 8, 1e-4
# Residuals below this part of the decline are rounding, and their variance counts as no more than that of rounding.
ROUNDING = 1e-9
_ROUNDING_VARIANCE = 1e-20


class Window:
    """Samples with the laws that were fitted to them so far.

    noise: standard deviation of log M about a smooth curve, `miss` included.
    miss: error of log M that does not average out, as of crests that lie between the samples.
    """

    def __init__(self, t: Array, y: Array, noise: float, miss: float = 0.0) -> None:
        self.t, self.y, self.noise, self.miss = t, y, noise, miss
        self.fits: dict[str, LawFit] = {}
        self._tried: set[str] = set()

    def fit(self, law: str) -> LawFit | None:
        if law not in self._tried:
            self._tried.add(law)
            found = (
                fit_law(law, self.t, self.y, miss=self.miss) if law not in COMPOUND or len(self.t) >= _FEWEST_COMPOUND else None
            )
            if found is not None:
                self.fits[law] = found
        return self.fits.get(law)

    def add(self, laws: tuple[str, ...]) -> Window:
        for law in laws:
            self.fit(law)
        return self

    @property
    def closest(self) -> LawFit:
        return min(self.fits.values(), key=lambda fit: fit.rss)

    @property
    def compounds(self) -> list[LawFit]:
        return [self.fits[law] for law in COMPOUND if law in self.fits]

    @property
    def decline(self) -> float:
        return float(self.y.max() - self.y[-1])

    def is_rounding(self, fit: LawFit) -> bool:
        """Whether the law holds to within rounding."""
        return self._misfit(fit, ROUNDING * max(self.decline, 1.0)) <= 1

    @property
    def has_exact(self) -> bool:
        """Whether some law is exact."""
        return any(self.is_exact(fit) for fit in self.fits.values())

    def is_exact(self, fit: LawFit) -> bool:
        if self.is_rounding(fit):
            return True
        if self._misfit(fit, self._noise_level) > 1 or fit.independent < _INDEPENDENT_SHARE * fit.points:
            return False
        return not _has_trend(self.y - fit.log_values(self.t))

    def is_near(self, fit: LawFit) -> bool:
        return self._misfit(fit, max(self._noise_level, _RESIDUAL_SHARE * max(self.decline, NO_DECLINE))) <= 1

    def comes_near(self, law: str) -> bool:
        fit = self.fit(law)
        return fit is not None and self.is_near(fit)

    @property
    def _noise_level(self) -> float:
        return _NOISE_FACTOR * (1 + _FEW / math.sqrt(len(self.t))) * self.noise

    def _misfit(self, fit: LawFit, allowed: float) -> float:
        """residual / allowed; accepted if <= 1."""
        size = max(fit.residual, fit.worst / _WORST_RESIDUAL)
        return size / allowed if allowed > 0 else math.inf if size > 0 else 0.0

    def aic(self, fit: LawFit) -> float:
        """AIC, corrected for few points, with the points corrected for autocorrelated residuals."""
        n, k = len(self.t), len(fit.parameters)
        least = _ROUNDING_VARIANCE * max(self.decline, 1.0) ** 2 + self.miss**2
        return self.closest.independent * math.log(fit.rss / n + least) + 2 * k * (1 + (k + 1) / max(n - k - 1, 1))

    def scores(self) -> dict[str, float]:
        return {law: self.aic(fit) for law, fit in self.fits.items()}

    def since(self, first: int) -> Window:
        """From this sample on."""
        return Window(self.t[first:], self.y[first:], self.noise, self.miss)

    def last(self, share: float) -> Window:
        """From this part of the times on."""
        first = min(int(np.searchsorted(self.t, self.t[0] + share * (self.t[-1] - self.t[0]))), len(self.t) - 2)
        return self.since(first)

    def later(self) -> Window:
        """The part in which the second half of the decline takes place."""
        highest = int(np.argmax(self.y))
        fallen = np.flatnonzero(self.y[highest:] <= self.y[highest] - self.decline / 2)
        first = min(highest + int(fallen[0]), len(self.t) - FEWEST_POINTS) if fallen.size else len(self.t) // 2
        return self.since(max(first, 0))


@lru_cache(maxsize=32)
def _waves(n: int) -> tuple[Array, float]:
    """The slowest cosines on n points, orthonormal, and the ratio of their mean square to the rest's that noise does not pass."""
    angles = math.pi * (np.arange(n) + 0.5) / n
    waves = math.sqrt(2 / n) * np.cos(np.arange(1, _WAVES + 1)[:, None] * angles)
    return waves, float(stats.f.isf(_UNLIKELY, _WAVES, n - _WAVES - 1))


def _has_trend(residual: Array) -> bool:
    """Whether the residual is more than noise: it holds slow waves that noise would not."""
    n = len(residual)
    if n < 3 * _WAVES:
        return False
    waves, limit = _waves(n)
    slow = float(((waves @ residual) ** 2).sum())
    rest = max(float(residual @ residual) - slow, 0.0)
    return slow / _WAVES > limit * rest / (n - _WAVES - 1)
