"""The papers' figures and tables, by name, in the papers' order."""

from __future__ import annotations

from .figure import Claim, Figure, Job, Options
from .ia_1 import IA_1A, IA_1B
from .ia_4 import IA_4A, IA_4B

__all__ = ["FIGURES", "Claim", "Figure", "Job", "Options"]

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (IA_1A, IA_1B, IA_4A, IA_4B)}
