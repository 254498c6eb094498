"""Which law the samples show, if they can tell, with a standard error that carries the misfit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import errors
from .laws import COMPOUND, EXPONENTIAL_END, SIMPLE, LawFit, fit_law
from .window import FEWEST_POINTS, NO_DECLINE, ROUNDING, Window

Array = NDArray[np.float64]

# --- evidence for a law ---
# Another law must beat the exponential, one of more parameters one of fewer, and an exponential a constant, by this much in AIC
# (likelihood ratio e^5) ...
DECISIVE = 10.0
# ... and laws that differ in kind must be this far apart (e^2).
_TELLING = 4.0
# A power law keeps its name unless a power of a logarithm, which no window tells from it for sure, gains this.
_SLOWER = 6.0
# A stretched exponent in here, and a power above this, are not told from an exponential by data of finite length.
_NEARLY_EXPONENTIAL = (0.85, 1.3)
_LARGE_POWER = 5.0
# In here, and with noise, a long decline counts as exponential all the same.
_INDISTINCT = (0.95, 1.05)
# One that may fall (by the error of its slope), but by less than a factor e^0.5, does not decay as far as the window can tell.
_SHORT_DECLINE = 0.5
# Over this many e-foldings a power law of exponent 2.5 bends so much that no noise hides it.
_LONG_DECLINE = 5.0
# --- windows ---
# Fractions of the range of log M after which a window may start: early times hold transients of faster modes.
_STARTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6)
# --- standard errors ---
# A law that comes near is named if its number differs by at most this part between windows and rivals of its kind.
_STEADY = 0.15
# A power law that is not exact from the start is named if t + s grows by this factor.
_DECADE = 10.0
# Of a power law less: what falls ever faster or slower has an exponent that drifts.
_STEADY_EXPONENT = 0.08
# The exponent of a power law may not drift in the later part by more than this, two standard errors included.
_LARGEST_DRIFT = 0.25
# A drift that is this many standard errors is one.
_SURE_DRIFT = 1.5
# Under noise a power law is named if t + s grows by this factor: over less it is one bend, as a sum of exponentials has.
_BEND = 3.0
# A gamma law above this order that is not exact is a parabola of log M.
_LARGE_ORDER = 8.0
# Under noise a compound law is named if its slowest part, where it is alone, falls by e^-3.
_OWN_DECLINE = 3.0
# Where the exponential comes near nowhere, a compound law is named that comes closer by this factor.
_CLOSER = 1 / 3
# A law is not named with a standard error above this part of its number.
_LARGEST_ERROR = 0.3


@dataclass(frozen=True)
class Choice:
    """The law chosen on a window, or "undecided" with the reason; `rivals` are the laws it was not told from."""

    law: str
    fits: dict[str, LawFit]
    evidence: dict[str, float]
    t: Array
    stderr: float = math.nan
    reason: str = ""
    rivals: tuple[LawFit, ...] = ()
    # no law describes the samples
    poor: bool = False


def choose(t: Array, y: Array, noise: float, reaches_end: bool, miss: float = 0.0) -> Choice:
    """The law of log M = y, with noise, and an error `miss` that does not average out.

    Where a law is exact on the whole window, to within noise or rounding, the laws compete there. Else the window is the longest,
    reaching to the end, on which an exponential comes near with a steady rate, or another law is exact.
    """
    whole = Window(t, y, math.hypot(noise, miss), miss)
    noisy = whole.noise > ROUNDING * max(whole.decline, 1.0)
    whole.add(SIMPLE)
    if noisy or not whole.has_exact:
        whole.add(COMPOUND)
    if whole.has_exact:
        choice = _exact(whole, True, reaches_end)
        if choice.law != "undecided" or not _surely_exponential(whole, choice):
            return choice
        # over a long decline the later part shows the rate
        parts = (window for window in _windows(whole) if window.decline > _LONG_DECLINE and window.comes_near("exponential"))
        rates = (_near(window, reaches_end) for window in parts)
        return next((rate for rate in rates if rate.law != "undecided"), choice)
    half = whole.last(0.5)
    if reaches_end and _does_not_fall(half) and _does_not_fall(whole.last(0.75)):
        lasting = whole if _does_not_fall(whole) else half
        return Choice("none", lasting.add(SIMPLE).fits, _evidence(lasting.scores()), lasting.t)
    for law in ("power", "stretched"):
        steady = _steady_exponent(law, whole)
        if steady is not None:
            return steady
    first: Choice | None = None
    windows = list(_windows(whole))
    for window in windows:
        if window.comes_near("none") or window.comes_near("exponential"):
            choice = _near(window, reaches_end)
        elif (steady := _steady_exponent("power", window)) is not None:
            return steady
        elif noisy and window.add(SIMPLE + COMPOUND).has_exact:
            choice = _exact(window, False, reaches_end)
        else:
            continue
        if choice.law != "undecided":
            return choice
        first = first or choice
    # a law of two parts may have a steady rate where the exponential alone has not
    compound = next((found for window in windows if (found := _near_compound(window)) is not None), None)
    return compound or first or _undecided(whole, whole.scores(), f"no law describes it on {_span(whole)}", poor=True)


def _does_not_fall(window: Window) -> bool:
    """Whether the slope is that of a constant or a rise, and certain enough."""
    window.fit("none")
    slope = window.fit("exponential")
    span = float(window.t[-1] - window.t[0])
    return slope is None or (slope.parameters[1] * span < NO_DECLINE and slope.stderr * span < _SHORT_DECLINE / 2)


def _surely_exponential(window: Window, choice: Choice) -> bool:
    """Whether all laws in question end exponentially, to within a stretched exponent too near 1 to tell, and only the rate is not
    certain."""
    scores = window.scores()
    lowest = min(scores.values())
    close = [window.fits[law] for law, score in scores.items() if score - lowest < DECISIVE]
    stretched = window.fits.get("stretched")
    told = (
        stretched is not None
        and scores["stretched"] - lowest < _TELLING
        and not _INDISTINCT[0] <= stretched.parameters[1] <= _INDISTINCT[1]
    )
    exponential = all(_kind(fit, window) == "exponential" or _nearly_exponential(fit) for fit in close)
    return exponential and not told and choice.rivals[0].law in (*EXPONENTIAL_END, "stretched")


def _windows(whole: Window) -> Iterator[Window]:
    """The whole window and later ones."""
    yield whole
    highest = int(np.argmax(whole.y))
    decline = float(whole.y[highest] - whole.y[-1])
    length = len(whole.t)
    for start in _STARTS:
        # where the smallest value so far has fallen by this part of the range
        first = highest + int(np.argmax(whole.y[highest:] <= whole.y[highest] - start * decline))
        if FEWEST_POINTS <= len(whole.t) - first < length:
            length = len(whole.t) - first
            yield whole.since(first)


# --- a law is exact ------------------------------------------------------------------------------------------


def _exact(window: Window, from_start: bool, reaches_end: bool) -> Choice:
    if "power" in window.fits and not window.is_rounding(window.fits["power"]):
        window.fit("logarithmic")
    scores, fits = window.scores(), window.fits
    falling = {law: score for law, score in scores.items() if law != "none"}
    best = min(falling, key=lambda law: falling[law], default="none")
    # one that rises first may not have fallen yet
    still = None if best in COMPOUND and scores["none"] - scores[best] > DECISIVE else _still(window, scores, reaches_end)
    if still is not None:
        return still
    best = _simplest(best, scores, fits)
    if best == "two exponentials" and fits[best].parameters[1] * (window.t[-1] - window.t[0]) < NO_DECLINE:
        return _levelled(window, scores, reaches_end)
    if _nearly_exponential(fits[best]):
        like = [law for law in falling if _kind(fits[law], window) == "exponential" and scores[law] - scores[best] < DECISIVE]
        if like or not from_start:
            return _tie(window, scores, [best, *(like or ["exponential"])])
    if best == "exponential" and _may_be_power(window, scores):
        return _tie(window, scores, ["exponential", "power"])
    if not from_start and best in ("power", "stretched"):
        # the time of a stretched exponential counts from 0, and a piece of many curves is a power law
        steady = _steady_exponent(best, window) if best == "power" else None
        return steady or _undecided(window, scores, f"{best} on {_span(window)} alone", [best])
    if scores[best] - scores.get("logarithmic", math.inf) > DECISIVE or best == "logarithmic":
        reason = f"it falls more slowly than the laws that are named on {_span(window)}"
        return _undecided(window, scores, reason, ["logarithmic"])
    close = [law for law in falling if law != best and _is_rival(law, best, scores, window)]
    if close:
        return _tie(window, scores, [best, *close])
    return _named(window, scores, best, from_start)


def _simplest(best: str, scores: dict[str, float], fits: dict[str, LawFit]) -> str:
    """The law of fewest parameters that no other beats decisively."""
    for count in (2, 3):
        simple = [law for law in fits if law not in ("none", "logarithmic") and len(fits[law].parameters) == count]
        if simple:
            law = min(simple, key=lambda law: scores[law])
            if scores[law] - scores[best] < DECISIVE:
                return law
    return best


def _kind(fit: LawFit, window: Window) -> str:
    """How the law ends: "exponential", "power", "stretched" or "logarithmic", as far as the window can tell."""
    span = float(window.t[-1] - window.t[0])
    if fit.law == "tempered" and fit.parameters[1] * span < _SHORT_DECLINE:
        return "power"
    return "exponential" if fit.law in EXPONENTIAL_END else fit.law


def _nearly_exponential(fit: LawFit) -> bool:
    """Whether the law is an exponential as far as data of finite length can tell."""
    if fit.law == "stretched":
        return bool(_NEARLY_EXPONENTIAL[0] <= fit.parameters[1] <= _NEARLY_EXPONENTIAL[1])
    return fit.law in ("power", "tempered") and (fit.exponent or 0.0) >= _LARGE_POWER


def _is_rival(law: str, best: str, scores: dict[str, float], window: Window) -> bool:
    """Whether a law that ends in another way describes the window as well."""
    fit, kind = window.fits[law], _kind(window.fits[best], window)
    if _kind(fit, window) == kind or (kind == "exponential" and _nearly_exponential(fit)):
        return False
    gain = scores[best] - scores[law]
    if law == "logarithmic":
        return gain > _SLOWER
    # one of more parameters that ends otherwise has to gain something for them
    more = len(fit.parameters) > len(window.fits[best].parameters) and best != "exponential"
    return gain > (_TELLING if more else -_TELLING)


def _may_be_power(window: Window, scores: dict[str, float]) -> bool:
    """Whether a power law that is one, of at most half the exponent at which it passes for an exponential, does as well."""
    if window.decline > _LONG_DECLINE and window.noise < NO_DECLINE * window.decline:
        return False
    power = fit_law("power", window.t, window.y, _LARGE_POWER / 2, window.miss)
    return power is not None and window.aic(power) - scores["exponential"] < _TELLING


def _named(window: Window, scores: dict[str, float], law: str, from_start: bool) -> Choice:
    """The law, with a standard error that covers the numbers of its rivals of the same kind and of the later part."""
    fit = window.fits[law]
    number = fit.headline
    assert number is not None
    if not window.is_rounding(fit) and errors.own_decline(window, fit) < _OWN_DECLINE:
        return _undecided(window, scores, f"its last part falls too little on {_span(window)}", [law])
    if not window.is_rounding(fit):
        if law == "gamma" and (fit.order or 0.0) > _LARGE_ORDER:
            return _undecided(window, scores, f"a gamma law of order {fit.order:.2g} is one bend on {_span(window)}", [law])
        if law == "power" and window.t[-1] + (fit.scale or 0.0) < _BEND * (window.t[0] + (fit.scale or 0.0)):
            return _undecided(window, scores, f"a power law is one bend on {_span(window)}", [law])
    spread = 0.0
    plain = from_start and law not in COMPOUND
    for other, rival in window.fits.items():
        if other == law or not {law, other} <= set(EXPONENTIAL_END):
            continue
        # a law that held from the start is doubted only by rivals that do better
        if scores[law] - scores[other] > (_TELLING / 2 if plain else -_TELLING) and rival.headline is not None:
            spread = max(spread, abs(rival.headline - number))
    drift, certain = errors.drift(window, fit)
    if law == "power" and abs(drift) + 2 * certain > _LARGEST_DRIFT * number:
        return _undecided(window, scores, f"the exponent is not steady on {_span(window)}", [law])
    if abs(drift) > (_SURE_DRIFT * certain if plain else 0.0):
        spread = max(spread, abs(drift))
    error = math.hypot(errors.fit_error(fit), spread, errors.unsteadiness(window) if law == "exponential" else 0.0)
    if error > _LARGEST_ERROR * number:
        return _undecided(window, scores, f"{law}, but its number is not certain to {_LARGEST_ERROR:.0%}", [law])
    return Choice(law, window.fits, _evidence(scores), window.t, math.hypot(error, errors.sum_error(window, fit)))


def _still(window: Window, scores: dict[str, float], reaches_end: bool) -> Choice | None:
    """The answer where the memory does not fall, or not for certain."""
    fits = window.fits
    span = float(window.t[-1] - window.t[0])
    ends = window.t[[0, -1]]
    decline = max(float(-np.diff(fit.log_values(ends))[0]) for law, fit in fits.items() if law not in COMPOUND)
    slope = fits.get("exponential")
    error = math.sqrt(slope.covariance[1, 1]) * span if slope is not None else 0.0
    falls = slope is not None and decline >= NO_DECLINE
    if falls and not (scores["none"] - scores["exponential"] < DECISIVE and decline + 2 * error < _SHORT_DECLINE):
        return None
    if not reaches_end:
        return _undecided(window, scores, f"it ends at t = {window.t[-1]:.3g} without decaying before")
    return Choice("none", fits, _evidence(scores), window.t)


def _levelled(window: Window, scores: dict[str, float], reaches_end: bool) -> Choice:
    """A constant that an exponential leads to: read where that has died out."""
    _, _, b, log_d = window.fits["two exponentials"].parameters
    left = np.abs(b) * np.exp(-math.exp(log_d) * window.t)
    late = np.flatnonzero(left < NO_DECLINE)
    if not reaches_end or len(late) < FEWEST_POINTS or window.t[-1] - window.t[late[0]] < NO_DECLINE * window.t[-1]:
        return _undecided(window, scores, f"it levels off at t = {window.t[-1]:.3g}")
    rest = Window(window.t[late], window.y[late], window.noise, window.miss)
    rest.add(SIMPLE)
    return Choice("none", rest.fits, _evidence(rest.scores()), rest.t)


# --- no law is exact -----------------------------------------------------------------------------------------


def _near(window: Window, reaches_end: bool) -> Choice:
    """The exponential, whose rate has to be steady."""
    scores = window.add(SIMPLE + COMPOUND).scores()
    still = _still(window, scores, reaches_end)
    if still is not None:
        return still
    if _may_be_power(window, scores):
        return _tie(window, scores, ["exponential", "power"])
    fit = window.fits["exponential"]
    later = window.later()
    if len(later.t) == len(window.t):
        return _undecided(window, scores, f"too few points to see a steady rate on {_span(window)}", ["exponential"])
    spread = max(_difference(fit, part.fit("exponential")) for part in (later, later.later()))
    closest = min((other.residual for other in window.compounds), default=math.inf)
    for other in window.compounds:
        # one that comes closer, and is sure of its rate
        difference = _difference(fit, other)
        if other.residual < min(fit.residual / 2, 2 * closest) and other.stderr < difference / 2:
            spread = max(spread, difference)
    if spread > _STEADY * fit.parameters[1]:
        return _undecided(window, scores, f"the rate is not steady on {_span(window)}", ["exponential"])
    error = math.hypot(errors.fit_error(fit), spread, errors.turning(window), errors.unsteadiness(window))
    return Choice("exponential", window.fits, _evidence(scores), window.t, error)


def _near_compound(window: Window) -> Choice | None:
    """A compound law much closer than the exponential, whose rate has to be as steady."""
    compounds, exponential = window.add(COMPOUND).compounds, window.fit("exponential")
    if not compounds or exponential is None:
        return None
    best = min(compounds, key=lambda other: other.rss)
    if not window.is_near(best) or best.residual > _CLOSER * exponential.residual or (best.order or 0.0) > _LARGE_ORDER:
        return None
    later = window.later()
    spread = _difference(best, later.fit(best.law))
    if len(later.t) == len(window.t) or spread > _STEADY * best.parameters[1] or errors.own_decline(window, best) < _OWN_DECLINE:
        return None
    left = spread / errors.share_of_the_way(window, later)
    # a number may pass by where it tends to and come back
    last = later.later()
    if len(last.t) < len(later.t) and (second := later.fit(best.law)) is not None and (third := last.fit(best.law)) is not None:
        left = max(left, _difference(second, third) / errors.share_of_the_way(later, last))
    scores = window.add(SIMPLE).scores()
    return Choice(best.law, window.fits, _evidence(scores), window.t, math.hypot(errors.fit_error(best), left))


def _difference(fit: LawFit, other: LawFit | None) -> float:
    """Between the numbers of two fits of one kind; infinite where the other was not found."""
    return math.inf if other is None else float(abs(other.parameters[1] - fit.parameters[1]))


def _steady_exponent(law: str, window: Window) -> Choice | None:
    """A power law or stretched exponential that comes near, decisively closer than laws that end in another way, and has a
    steady exponent."""
    fit = window.fit(law)
    if fit is None or not window.is_near(fit) or _nearly_exponential(fit):
        return None
    scale = fit.scale or 0.0
    if law == "power" and (window.t[-1] + scale) < _DECADE * (window.t[0] + scale):
        return None
    window.add(SIMPLE + COMPOUND + ("logarithmic",))
    scores = window.scores()
    others = [name for name, other in window.fits.items() if _kind(other, window) != law]
    if any(scores[other] - scores[law] < DECISIVE for other in others):
        return None
    later = window.later()
    spread = max(_difference(fit, part.fit(law)) for part in (later, later.later()))
    if spread > _STEADY_EXPONENT * fit.parameters[1]:
        return None
    return Choice(law, window.fits, _evidence(scores), window.t, math.hypot(errors.fit_error(fit), spread))


# --- answers -------------------------------------------------------------------------------------------------


def _evidence(scores: dict[str, float]) -> dict[str, float]:
    lowest = min(scores.values())
    return {law: score - lowest for law, score in scores.items()}


def _span(window: Window) -> str:
    return f"[{window.t[0]:.3g}, {window.t[-1]:.3g}]"


def _undecided(
    window: Window, scores: dict[str, float], reason: str, laws: list[str] | None = None, poor: bool = False
) -> Choice:
    """With the two best laws, those of `laws` first."""
    ranked = sorted((law for law in scores if law != "none"), key=lambda law: scores[law])
    named = list(dict.fromkeys([*(laws or []), *ranked]))[:2]
    rivals = tuple(window.fits[law] for law in named)
    return Choice("undecided", window.fits, _evidence(scores), window.t, math.nan, reason, rivals, poor)


def _tie(window: Window, scores: dict[str, float], laws: list[str]) -> Choice:
    names = " and ".join(sorted(laws, key=lambda law: scores[law])[:2])
    reason = f"{names} fit alike on {_span(window)}, where it falls by e^-{window.decline:.2g}"
    return _undecided(window, scores, reason, sorted(laws, key=lambda law: scores[law]))
