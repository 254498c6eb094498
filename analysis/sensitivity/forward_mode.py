"""Forward-mode differentiation without PyTorch's own warning of its first use."""

from __future__ import annotations

import warnings

import torch
from torch.func import jvp


def load() -> None:
    """Loads what forward mode needs: PyTorch does so at its first use, and warns that it compiles by torch.jit.script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))
