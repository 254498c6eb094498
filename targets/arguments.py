"""Checks of arguments: each returns the value in its proper type, or says in one line what came and what was expected."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Sizes above this are no sizes: memory ends far below, and PyTorch's own message speaks of overflow.
MOST = 2**31 - 1


def number(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf, finite: bool = True
) -> float:
    """A real number, above < value < below and value >= least; a 0-d array or tensor counts as one.

    Raises:
        ValueError: no real number, NaN, out of range, or infinite where `finite`.
    """
    found = _scalar(value)
    real = isinstance(found, numbers.Real) and not isinstance(found, bool | np.bool_)
    result = float(min(max(found, -1e308), 1e308)) if real and isinstance(found, int) else float(found) if real else math.nan
    inside = (above < result or above == -math.inf) and least <= result and (result < below or below == math.inf)
    if math.isnan(result) or not inside or (finite and math.isinf(result)):
        bounds = (
            [f"> {above:g}"] * (above > -math.inf)
            + [f">= {least:g}"] * (least > -math.inf)
            + [f"< {below:g}"] * (below < math.inf)
        )
        kind = "a finite number" if finite else "a number"
        raise ValueError(f"{name} is {_shown(value)}, expected {' '.join([kind, ' and '.join(bounds)]).strip()}")
    return result


def count(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """A whole number in [least, most], of any integer type.

    Raises:
        ValueError: no integer, or out of range.
    """
    found = _scalar(value)
    whole = isinstance(found, numbers.Integral) and not isinstance(found, bool | np.bool_)
    if not whole or not least <= int(found) <= most:
        bounds = f"of at least {least}" if most == MOST and not (whole and found > most) else f"from {least} to {most}"
        raise ValueError(f"{name} is {_shown(value)}, expected an integer {bounds}")
    return int(found)


def counts(name: str, value: Any, least: int = 1) -> tuple[int, ...]:
    """Several whole numbers of at least `least`, maybe none: a tuple, a list, an array or a tensor (n,).

    Raises:
        ValueError: no such list, or one that holds anything else.
    """
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 1 and not getattr(value, "is_meta", False):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name} is {_shown(value)}, expected a list of integers of at least {least}; give for example (2, 4)")
    return tuple(count(name, one, least) for one in value)


def generator(seed: Any) -> torch.Generator:
    """The generator of a seed: a new one on the CPU for an integer, a generator as it is.

    Raises:
        ValueError: neither, or an integer beyond 64 bits.
    """
    if isinstance(seed, torch.Generator):
        return seed
    found = _scalar(seed)
    whole = isinstance(found, numbers.Integral) and not isinstance(found, bool | np.bool_)
    if not whole or not -(2**63) <= int(found) < 2**64:
        raise ValueError(f"seed is {_shown(seed)}, expected an integer of 64 bits or a torch.Generator; give for example 0")
    return torch.Generator().manual_seed(int(found))


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of several names.

    Raises:
        ValueError: another; lists the names.
    """
    names = tuple(choices)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"unknown {name} {_shown(value)}, expected one of {', '.join(names)}")
    return value


def instance(name: str, value: Any, kind: type | tuple[type, ...], remedy: str) -> None:
    """Raises ValueError with the remedy unless the value is of that kind."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(f"{name} is {kind_of(value)}, expected a {' or '.join(one.__name__ for one in kinds)}; {remedy}")


def real_tensor(name: str, value: Any, *, finite: bool = True, or_complex: bool = False) -> Tensor:
    """A tensor, array or nested list of real numbers as a floating-point tensor; whole numbers and lists become float64.

    `or_complex` lets complex tensors pass.

    Raises:
        ValueError: no real numbers, sparse, without values (device meta), or not finite where `finite` (and not `traced()`).
    """
    tensor = value
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except Exception:  # ragged lists, lists of tensors: numpy has many ways to say so
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} is {_shown(value)}, expected a tensor of real numbers; give torch.tensor([...])")
        # a copy: torch warns of arrays that cannot be written, and refuses those that run backwards
        tensor = torch.from_numpy(np.array(array, dtype=array.dtype if array.dtype in (np.float32, np.float16) else np.float64))
    if (tensor.is_complex() and not or_complex) or tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
        kind = "meta" if tensor.is_meta else str(tensor.layout) if tensor.layout != torch.strided else str(tensor.dtype)
        raise ValueError(f"{name} is a {kind} tensor, expected a dense tensor of real numbers with values; convert it")
    if not (tensor.is_floating_point() or tensor.is_complex()):
        tensor = tensor.double()
    if finite and not traced() and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise ValueError(f"{name} holds NaN or infinite values ({bad} of {tensor.numel()}), expected finite ones; replace them")
    return tensor


def floating_tensor(name: str, value: Any, *, shape: str = "", remedy: str = "convert it", finite: bool = True) -> Tensor:
    """A floating-point tensor as it is; arrays, lists and whole numbers are refused, and what `real_tensor` refuses.

    Args:
        shape: what to expect, for the message.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} is {kind_of(value)}, expected a floating-point tensor{shape and ' '}{shape}; {remedy}")
    return real_tensor(name, value, finite=finite)


def traced() -> bool:
    """Whether tensors may have no values to look at: while torch.compile or torch.export trace, and inside transforms of
    torch.func. The operators that solve then look when there are values (`odernn.solvers.operators`)."""
    return torch.compiler.is_compiling() or transformed()


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jacrev, ...) is at work."""
    return torch._C._are_functorch_transforms_active()


def batched(tensor: Tensor) -> bool:
    """Whether torch.vmap hides an axis of the tensor."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False


def kind_of(value: Any) -> str:
    """The type of a value as a message names it."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor"
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _scalar(value: Any) -> Any:
    """The Python or numpy number in a 0-d array or tensor; anything else as it is."""
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_meta:
        return value.item()
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _shown(value: Any) -> str:
    """A value as a message shows it: short, on one line."""
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__} ({text[:50]}...)"
