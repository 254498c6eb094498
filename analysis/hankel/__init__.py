"""The computable curse of memory: how well any linear model of m states can do, by Hankel singular values.

`spectrum` has the singular values, the floor and the ceiling; `reduction` the model that meets the ceiling; `picture` both beside
fitted and trained models.
"""

from __future__ import annotations

from .reduction import BalancedTruncation, balanced_truncation
from .spectrum import HankelSpectrum, hankel_spectrum
from .state_space import StateSpace, state_space

__all__ = ["BalancedTruncation", "HankelSpectrum", "StateSpace", "balanced_truncation", "hankel_spectrum", "state_space"]
