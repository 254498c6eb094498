"""Ways to integrate a vector field along a control path."""

from __future__ import annotations

from .base import DivergedSolve, Solution, Solver
from .choice import automatic, choose_solver, deviation
from .exact import Exact
from .fused import TABLEAUX, Fused
from .torchdiffeq import METHODS, TorchDiffEq

__all__ = [
    "METHODS",
    "TABLEAUX",
    "DivergedSolve",
    "Exact",
    "Fused",
    "Solution",
    "Solver",
    "TorchDiffEq",
    "automatic",
    "choose_solver",
    "deviation",
]
