"""Ways to integrate a vector field along a control path."""

from __future__ import annotations

from .adaptive import PAIRS, Adaptive
from .base import DivergedSolve, Solution, Solver
from .choice import automatic, choose_solver, deviation
from .exact import Exact
from .fused import TABLEAUX, Fused
from .names import SOLVERS, Auto, named, own_default
from .resolution import NOTICEABLE_ERROR, InaccurateSolve
from .torchdiffeq import METHODS, TorchDiffEq

__all__ = [
    "METHODS",
    "NOTICEABLE_ERROR",
    "PAIRS",
    "SOLVERS",
    "TABLEAUX",
    "Adaptive",
    "Auto",
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
    "named",
    "own_default",
]
