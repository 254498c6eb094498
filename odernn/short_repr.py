"""Values that hold tensors, shown in a line or a few instead of pages of numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

# So many numbers of a tensor are shown, of a larger one the shape; and so many entries of a tuple or a mapping.
_NUMBERS, _ENTRIES = 6, 4


def shown(value: Any) -> str:
    """A value in a few words: numbers to four digits, a large array or tensor by its shape, a module by its class."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.item() if value.ndim == 0 else value.resolve_conj().numpy() if value.dtype != torch.bfloat16 else value
    if isinstance(value, np.ndarray | torch.Tensor):
        if value.ndim == 1 and value.shape[0] <= _NUMBERS and isinstance(value, np.ndarray):
            return f"[{', '.join(shown(one) for one in value.tolist())}]"
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, float | complex):
        return f"{value:.4g}"
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, Mapping):
        few = [f"{key}: {shown(one)}" for key, one in list(value.items())[:_ENTRIES]]
        return "{" + ", ".join([*few, *["..."] * (len(value) > _ENTRIES)]) + "}"
    if isinstance(value, tuple | list):
        few = [shown(one) for one in value[:_NUMBERS]]
        return "(" + ", ".join([*few, *["..."] * (len(value) > _NUMBERS)]) + ")"
    return reprlib.repr(value) if isinstance(value, str) else repr(value)


def short_repr(self: Any) -> str:
    """`__repr__` of a dataclass that holds tensors."""
    parts = ", ".join(f"{one.name}={shown(getattr(self, one.name))}" for one in fields(self) if one.repr)
    return f"{type(self).__name__}({parts})"
