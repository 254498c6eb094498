"""The probes of memory functions, and how each kind of system responds to them."""

from __future__ import annotations

from .adapted import Adapted
from .base import PROBES, Probe, ProbedSystem, ProbeResponse
from .dispatch import differentiable, dynamics, probed, states

__all__ = ["PROBES", "Adapted", "Probe", "ProbeResponse", "ProbedSystem", "differentiable", "dynamics", "probed", "states"]
