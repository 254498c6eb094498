"""The law a memory function decays by, with its standard error, the evidence for it and the window it was read from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..memory import MemoryFunction
from ..results import Result
from . import samples
from .choice import DECISIVE, Choice, choose
from .laws import EXPONENTIAL_END, LawFit
from .window import FEWEST_POINTS, NO_DECLINE

Array = NDArray[np.float64]
Law = Literal["exponential", "gamma", "tempered", "two exponentials", "power", "stretched", "none", "undecided"]

# Values are used down to this many floors: rounding then moves them by a third at most, and only at the end of the window.
_FLOORS = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class DecayFit(Result):
    """The law of decay of a memory function, on the window it was read from.

        exponential        a e^{-r t}
        gamma              a (t + s)^k e^{-r t}, k > 0: of a defective spectrum, or layers on top of each other
        tempered           a (1 + t/s)^-p e^{-r t}
        two exponentials   a (e^{-r t} + b e^{-r_2 t}), r < r_2
        power              a (1 + t/s)^-p
        stretched          a e^{-(r t)^beta}; beta > 1 is compressed
        none               does not decay
        undecided          the samples do not tell

    Args:
        law: as above.
        amplitude: a.
        rate: r, 1/time; None for the power law.
        exponent: p, or beta of the stretched exponential; None otherwise.
        scale: s, time; None where there is none, or where it is 0.
        stderr: standard error of the exponent (power, stretched) or else the rate. It carries the misfit: how far the number
            differs between laws of the same kind that describe the window as well, and between windows. NaN otherwise.
        evidence: for each law its AIC less that of the best one: 0 is best, 10 is decisive.
        window: times between which the law was fitted and holds.
        points: fitted, maxima of the oscillation if `envelope`.
        envelope: whether M oscillates and its envelope was fitted.
        residual: root mean square deviation of log M from the law.
        reason: why nothing was decided, or empty.
        fits: every law, fitted on the window.
        order: k of the gamma law; None otherwise.
        second_rate: r_2; None otherwise.
        rivals: where nothing was decided, the two laws that come closest.
        spectrum_rate: rate of the slowest observable mode of the system's linearisation at rest, where it is known.

    Example:
        >>> import numpy as np
        >>> from analysis import fit_decay
        >>> t = np.linspace(0, 100, 401)
        >>> fit = fit_decay((t, (1 + t) ** -1.5))
        >>> fit.law, round(float(fit.exponent), 3), fit.rate
        ('power', 1.5, None)
    """

    law: Law
    amplitude: float
    rate: float | None
    exponent: float | None
    scale: float | None
    stderr: float
    evidence: Mapping[str, float]
    window: tuple[float, float]
    points: int
    envelope: bool
    residual: float
    reason: str = ""
    fits: Mapping[str, LawFit] = field(default_factory=dict, repr=False)
    order: float | None = None
    second_rate: float | None = None
    rivals: tuple[LawFit, ...] = field(default=(), repr=False)
    spectrum_rate: float | None = None

    @property
    def ends_exponentially(self) -> bool:
        """Whether the law falls as e^{-rate t} in the end, whatever stands before it."""
        return self.law in EXPONENTIAL_END

    def predict(self, t: ArrayLike) -> Array:
        """The law at times t; NaN where none was decided on."""
        if self.law == "undecided":
            return np.full(np.shape(t), math.nan)
        return np.asarray(np.exp(self.fits[self.law].log_values(t)))

    def band(self, t: ArrayLike, errors: float = 1.96) -> tuple[Array, Array]:
        """Lower and upper end of the confidence band of the law, `errors` standard errors either side; 1.96 for 95 %."""
        if self.law == "undecided":
            nothing = np.full(np.shape(t), math.nan)
            return nothing, nothing
        fit = self.fits[self.law]
        J = fit.jacobian(t)
        width = errors * np.sqrt(np.einsum("ni,ij,nj->n", J, fit.covariance, J).clip(min=0))
        line = fit.log_values(t)
        return np.exp(line - width), np.exp(line + width)

    def describe(self) -> str:
        """One line: the law with its numbers and their standard errors; undecided: the reason and the two closest laws."""
        if self.law != "undecided":
            return self.fits[self.law].describe(self.stderr)
        closest = " or ".join(rival.describe() for rival in self.rivals)
        return f"undecided: {self.reason}" + (f" (closest: {closest})" if closest else "")

    def preference(self) -> str:
        """Why the law is named though another has a lower AIC; empty where none has."""
        best = min(self.evidence, key=lambda law: (self.evidence[law], law != self.law), default=self.law)
        if self.law not in self.evidence or best == self.law:
            return ""
        above = self.evidence[self.law]
        if above >= DECISIVE:
            number = "rate" if self.rate is not None else "exponent"
            return f"no law is exact here, and {self.law} is the one that comes near with a steady {number}"
        reason = (
            f"{self.law} is named: it has fewer parameters than {best}, and {above:.2g} more in AIC is less than {DECISIVE:g}"
        )
        fit = self.fits.get(best)
        if self.law == "exponential" and best == "stretched" and fit is not None:
            reason += f" (stretched with an exponent of 1 is exponential, the one fitted is {fit.exponent:.3g})"
        return reason


def fit_decay(M: MemoryFunction | tuple[ArrayLike, ArrayLike], *, floor: float | None = None) -> DecayFit:
    """The law by which M decays, if the samples can tell.

    log M above the floor is fitted by least squares with each law, on the envelope (the maxima) where M oscillates. The window
    ends where M reaches its floor, and starts as early as some law describes all that follows to within the noise. There the law
    of fewest parameters is named that no other beats by 10 in AIC (corrected for autocorrelated residuals), and
    "undecided" where one that ends in another way is within 4.

    Where no law describes M to within the noise (many modes, say), an exponential is named on the longest window that it
    describes to within 1 % of the decline, if its rate differs by less than 15 % from that of the later part and of the rival
    laws; a power law or stretched exponential where it comes twice as close as any other and its exponent is as steady.

    The standard error carries the misfit: the difference from rivals that do as well and from later windows; where no law is
    exact, the way that a rate which still turns as r - k/t has to go, and the scatter between parts of the window; the error of a
    parabola through three samples of a crest. With few points it is widened, so that three of it hold as often as three of many.
    A stretched exponent in [0.85, 1.3] or a power above 5 is not told from an exponential unless it is decisively better.

    Args:
        M: a memory function (of one system), or (times, values).
        floor: level below which values are rounding. None: that of M; for (times, values) a tail that has stopped falling within
            1000 roundings of the largest value is taken for one.

    Raises:
        ValueError: an ensemble, or times and values that do not fit together.

    Example:
        >>> import numpy as np
        >>> from analysis import fit_decay
        >>> t = np.linspace(0, 20, 201)
        >>> fit = fit_decay((t, 2 * np.exp(-0.5 * t)))
        >>> fit.law, round(float(fit.rate), 3)
        ('exponential', 0.5)
    """
    t, values, floor, eps = samples.checked(M, floor)
    spectrum_rate = M.spectrum_rate if isinstance(M, MemoryFunction) else None

    def unread(reason: str, window: tuple[float, float], points: int, envelope: bool) -> DecayFit:
        choice = Choice("undecided", {}, {}, t, reason=reason)
        return _result(choice, window, points, envelope, spectrum_rate)

    largest = float(values.max(initial=0.0))
    if not largest > floor:
        return unread("no value lies above the numerical floor", (float(t[0]), float(t[-1])), 0, False)
    end = samples.end_above(values, _FLOORS * floor)
    reaches_end = end == len(values)
    # an abrupt end is not an approach to the floor
    reached = max(_FLOORS * floor, float(values[end:].max(initial=0.0)), eps * largest)
    abrupt = not reaches_end and values[end - 1] > samples.PLATEAU_ROUNDINGS * reached
    t, values = t[:end], values[:end]
    t, log_m, envelope, miss = samples.envelope_of(t, values, _FLOORS * floor)
    window = (float(t[0]), float(t[-1])) if t.size else (0.0, 0.0)
    if len(t) < FEWEST_POINTS and not (envelope and len(t) >= samples.FEWEST_MAXIMA):
        return unread(f"only {len(t)} points lie above the numerical floor", window, len(t), envelope)
    if abrupt:
        return unread(f"it ends abruptly at t = {window[1]:g}", window, len(t), envelope)
    noise = samples.noise_of(t, log_m)
    choice = choose(t, log_m, noise, reaches_end, miss)
    if choice.poor and not envelope:
        closest = min(choice.fits.values(), key=lambda fit: fit.rss)
        crests = samples.crests_of(t, log_m, closest, noise)
        if len(crests) >= samples.FEWEST_MAXIMA and not (again := choose(t[crests], log_m[crests], 0.0, reaches_end)).poor:
            choice, envelope = again, True
    window = (float(choice.t[0]), float(choice.t[-1]))
    if choice.law == "none" and (3 * miss > NO_DECLINE or (not envelope and samples.fall_of_crests(log_m) > NO_DECLINE)):
        # crests known to less than a decline say nothing of one, and few of them that fall may fall on
        reason = "the samples do not resolve the oscillation" if envelope else "too few maxima of an oscillation, and they fall"
        return unread(reason, window, len(choice.t), envelope)
    return _result(choice, window, len(choice.t), envelope, spectrum_rate)


def _result(choice: Choice, window: tuple[float, float], points: int, envelope: bool, spectrum_rate: float | None) -> DecayFit:
    fit = choice.fits.get(choice.law)
    law: Any = choice.law
    return DecayFit(
        law=law,
        amplitude=fit.amplitude if fit else math.nan,
        stderr=choice.stderr,
        evidence=choice.evidence,
        window=window,
        points=points,
        envelope=envelope,
        residual=fit.residual if fit else min((other.residual for other in choice.fits.values()), default=math.nan),
        reason=choice.reason,
        fits=choice.fits,
        rivals=choice.rivals,
        spectrum_rate=spectrum_rate,
        **{name: getattr(fit, name, None) for name in ("rate", "exponent", "scale", "order", "second_rate")},
    )
