"""dy_t/dx_s while a system is driven: memory around a background, and the effective state size along it."""

from __future__ import annotations

from .background import BackgroundMemory, background_memory
from .picture import plot_background
from .state_size import EffectiveStateSize, effective_state_size

__all__ = ["BackgroundMemory", "EffectiveStateSize", "background_memory", "effective_state_size", "plot_background"]
