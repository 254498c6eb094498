"""The computable curse of memory: how well any linear model of m states can do, by Hankel singular values.

`spectrum` has the singular values, the floor and the ceiling; `reduction` the model that meets the ceiling; `widths` both beside
fitted and trained models, and `picture` draws them.
"""

from __future__ import annotations

from .gain import h_infinity_distance
from .picture import draw_width_errors, plot_width_errors
from .reduction import BalancedTruncation, balanced_truncation
from .spectrum import HankelSpectrum, hankel_spectrum
from .state_space import StateSpace, state_space
from .widths import WidthErrors, width_errors

__all__ = [
    "BalancedTruncation",
    "HankelSpectrum",
    "StateSpace",
    "WidthErrors",
    "balanced_truncation",
    "draw_width_errors",
    "h_infinity_distance",
    "hankel_spectrum",
    "plot_width_errors",
    "state_space",
    "width_errors",
]
