"""Perturbation errors E_m(beta): how far a model strays from its target when its weights are perturbed by beta.

`perturbation_error` searches the worst perturbation and gives a `PerturbationCurve`; pictures are in `picture`.
"""

from __future__ import annotations

from .balls import weight_norms
from .curve import TOLERANCE, PerturbationCurve
from .errors import ERRORS
from .search import DRAWS, PUBLISHED_BETAS, RESTARTS, STEPS, perturbation_error

__all__ = [
    "DRAWS",
    "ERRORS",
    "PUBLISHED_BETAS",
    "RESTARTS",
    "STEPS",
    "TOLERANCE",
    "PerturbationCurve",
    "perturbation_error",
    "weight_norms",
]
