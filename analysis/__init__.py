"""What is learnt of sequence models: their memory functions and decay laws, and the measures researchers compare them with."""

from __future__ import annotations

from .capacity import MemoryCapacity, memory_capacity
from .decay import DecayFit, fit_decay
from .fixed_points import FixedPoints, fixed_points
from .lyapunov import LyapunovExponents, lyapunov_exponents
from .memory import MemoryFunction, memory_function
from .plotting import plot_memory, plot_training

__all__ = [
    "DecayFit",
    "FixedPoints",
    "LyapunovExponents",
    "MemoryCapacity",
    "MemoryFunction",
    "fit_decay",
    "fixed_points",
    "lyapunov_exponents",
    "memory_capacity",
    "memory_function",
    "plot_memory",
    "plot_training",
]
