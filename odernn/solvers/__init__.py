"""Ways to integrate a vector field along a control path."""

from __future__ import annotations

from .adaptive import PAIRS, Adaptive
from .base import DivergedSolve, Solution, Solver
from .choice import automatic, choose_solver, deviation
from .exact import Exact
from .fused import TABLEAUX, Fused
from .resolution import NOTICEABLE_ERROR, InaccurateSolve
from .torchdiffeq import METHODS, TorchDiffEq

__all__ = [
    "METHODS",
    "NOTICEABLE_ERROR",
    "PAIRS",
    "TABLEAUX",
    "Adaptive",
    "DivergedSolve",
    "Exact",
    "Fused",
    "InaccurateSolve",
    "Solution",
    "Solver",
    "TorchDiffEq",
    "automatic",
    "choose_solver",
    "deviation",
]
