"""The law a memory function decays by: named where the samples can tell, with errors, evidence and window."""

from __future__ import annotations

from .fit import DecayFit, Law, fit_decay
from .laws import EXPONENTIAL_END, LawFit

__all__ = ["EXPONENTIAL_END", "DecayFit", "Law", "LawFit", "fit_decay"]
