"""Continuous-time sequence models, the solvers that integrate them, and their training."""

from __future__ import annotations

from .models import ContinuousRNN, DiscreteRNN, DiscreteSSM, SequenceModel, StateSpaceModel
from .solvers import DivergedSolve, Exact, Fused, InaccurateSolve, Solution, Solver, TorchDiffEq

__all__ = [
    "ContinuousRNN",
    "DiscreteRNN",
    "DiscreteSSM",
    "DivergedSolve",
    "Exact",
    "Fused",
    "InaccurateSolve",
    "SequenceModel",
    "Solution",
    "Solver",
    "StateSpaceModel",
    "TorchDiffEq",
]
