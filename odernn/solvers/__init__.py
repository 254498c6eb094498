"""Ways to integrate a vector field along a control path."""

from __future__ import annotations

from .base import DivergedSolve, Solution, Solver
from .choice import automatic
from .exact import Exact
from .torchdiffeq import METHODS, TorchDiffEq

__all__ = ["METHODS", "DivergedSolve", "Exact", "Solution", "Solver", "TorchDiffEq", "automatic"]
