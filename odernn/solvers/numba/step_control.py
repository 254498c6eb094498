"""How long the steps of an embedded pair are: plain functions of numbers, for the compiled kernels and the tensor operations.

An error counts in units of the tolerance: 1 is the most that a step may be off by. Sources: E. Hairer, S. P. Norsett,
G. Wanner, Solving ordinary differential equations I, II.4; for the control by two errors (PI) K. Gustafsson, ACM Trans. Math.
Softw. 17 (1991).
"""

from __future__ import annotations

from typing import NamedTuple

from ..standard_form import StepCount

# Tries of a step in one interval after which a solve counts as failed: a stiff W otherwise runs for hours.
MAX_STEPS = 10_000
# Aim below the tolerance; bounds of the ratio of two steps.
SAFETY, SHORTEST, LONGEST = 0.9, 0.2, 10.0
# The part of the previous error in the control, times the order (Hairer's DOPRI5 takes 0.04); an error below the least is none.
MEMORY, LEAST_ERROR = 0.2, 1e-4
# Steps of this ratio count as equal, so that rounding does not decide between two courses.
EQUAL = 0.99
# The first step explores with this length where the size of state or rate says nothing.
EXPLORING, NOTHING = 1e-6, 1e-5

# How a solve of a block of sequences ended.
DONE, UNDERFLOW, TOO_MANY = range(3)


class Control(NamedTuple):
    """The tolerance of a step, and the order p of the pair: the error of a step falls as (step)^p."""

    rtol: float
    atol: float
    order: float


def step_within(rest: float, proposal: float) -> float:
    """The next step, with `rest` to go in the interval: the last two share what is left, so that none is tiny."""
    if proposal >= EQUAL * rest:
        return rest
    return 0.5 * rest if proposal > 0.5 * rest else proposal


def step_after(order: float, step: float, error: float, before: float, proposal: float, again: bool) -> float:
    """The step to propose after one that was accepted.

    Args:
        before: the error of the one before that.
        proposal: its own length before it was cut to the interval.
        again: whether it was a second try, after which steps do not grow.
    """
    memory = MEMORY / order
    growth = LONGEST
    if error > 0.0:
        growth = SAFETY * error ** (0.75 * memory - 1.0 / order) * before**memory
        growth = min(LONGEST, max(SHORTEST, growth))
    if again:
        growth = min(growth, 1.0)
    following = step * growth
    # Of a longer one than LONGEST times itself a short step cannot tell.
    return max(proposal, following) if step < proposal and growth >= LONGEST else following


def error_to_remember(step: float, error: float, before: float, proposal: float) -> float:
    """The error that the control takes for that of the step before: one of a step cut to its interval tells little."""
    return before if step < EQUAL * proposal else max(error, LEAST_ERROR)


def step_again(order: float, step: float, error: float) -> float:
    """The step to try after one that was off by more than the tolerance (inf: not finite)."""
    if not error < float("inf"):
        return step * SHORTEST
    return step * max(SHORTEST, SAFETY * error ** (-1.0 / order))


def exploring_step(length: float, size: float, slope: float) -> float:
    """The step by which to see how fast the rate changes, from the size of the state and of its rate."""
    tells = size >= NOTHING and NOTHING <= slope < float("inf")
    guess = 0.01 * size / slope if tells else EXPLORING
    return min(guess, length)


def first_step(order: float, length: float, exploring: float, slope: float, bend: float) -> float:
    """The first step, from the size of the rate and of its derivative."""
    largest = max(slope, bend)
    if not largest < float("inf"):
        return exploring
    if largest <= 1e-15:
        return length
    return min(100.0 * exploring, (0.01 / largest) ** (1.0 / order))


def count_steps(accepted: int, tries: int, end: int) -> StepCount:
    reasons = {UNDERFLOW: "the step size underflowed", TOO_MANY: f"more than {MAX_STEPS} steps in one interval"}
    return StepCount(accepted, tries - accepted, reasons.get(end))
