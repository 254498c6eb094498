"""Which code runs a solve: compiled for the CPU or the GPU, or tensor operations, in large products or plain."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from .first_order import first_order_only
from .standard_form import Problem, Scan

Backend = Literal["auto", "numba", "triton", "products", "torch"]
TRITON_MAX_SIZE = 128
_NUMBA_DTYPES, _TRITON_DTYPES = (torch.float32, torch.float64), (torch.float32,)


def backend_for(
    name: Backend,
    like: Tensor,
    emits: bool = False,
    leaks: bool = False,
    otherwise: Backend = "products",
    timed: bool = False,
) -> ModuleType:
    """The module of a backend, for states like this tensor; see `odernn.solvers.standard_form.Problem`.

    Args:
        name: 'auto' for the first of the others that takes such states.
        emits: whether products read something else than states.
        leaks: whether states leak.
        otherwise: the backend to recommend where this one does not take them.
        timed: whether each sequence has steps of its own.

    Raises:
        ValueError: a backend that is not installed or does not take such states.
    """
    if name == "auto":
        name = next(one for one in ("numba", "triton", "products") if obstacle(one, like, emits, leaks, timed) is None)
    reason = obstacle(name, like, emits, leaks, timed)
    if reason is not None:
        raise ValueError(f"backend {name!r} {reason}: choose backend {otherwise!r} or 'auto'")
    if name == "numba":
        from .numba import backend  # numba takes a second to import

        return backend
    if name == "triton":
        from .triton import launch

        return launch
    if name == "products":
        from . import batched_products

        return batched_products
    from . import torch_reference

    return torch_reference


def obstacle(name: str, like: Tensor, emits: bool = False, leaks: bool = False, timed: bool = False) -> str | None:
    """Why a backend cannot take states like this one; None where it can."""
    if name in ("products", "torch"):
        return None
    device, dtypes = ("cpu", _NUMBA_DTYPES) if name == "numba" else ("cuda", _TRITON_DTYPES)
    # Triton's interpreter, for tests, works on the CPU.
    if like.device.type != device and not (name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"runs on {device}, got tensors on {like.device}"
    if like.dtype not in dtypes:
        return f"computes in {', '.join(map(str, dtypes))}, got {like.dtype}"
    if name == "triton" and emits:
        return "takes no activation between layers"
    if name == "triton" and leaks:
        return "takes no leak"
    if name == "triton" and timed:
        return "takes no times of each sequence"
    if name == "triton":
        largest = triton_size(torch.cuda.get_device_capability(like.device)) if like.is_cuda else TRITON_MAX_SIZE
        if largest == 0:
            return "needs a GPU with tensor cores for bfloat16 (compute capability 8.0)"
        if like.shape[-1] > largest:
            return f"holds W on chip for at most {largest} hidden units, got {like.shape[-1]}"
    return "needs the package triton (pip install triton)" if name == "triton" and not _triton_installed() else None


def triton_size(capability: tuple[int, int]) -> int:
    """The widest W that Triton's kernels hold on chip, by the compute capability of a GPU; 0 where they do not run."""
    if capability < (8, 0):
        return 0
    # GPUs with 99 KiB of shared memory instead of 163 or 227.
    return 64 if capability in ((8, 6), (8, 9)) or capability[0] == 12 else TRITON_MAX_SIZE


class BackendSolve(torch.autograd.Function):
    """A backend's solve as one operation: h, (E, batch, K + 1, m), of `forward`, and gradients in the tensors of `adjoint`."""

    @staticmethod
    def forward(
        ctx: Any,
        problem: Problem | Scan,
        forward: Callable[..., Tensor],
        adjoint: Callable[..., tuple[Tensor | None, ...]],
        *tensors: Tensor,
    ) -> Tensor:
        h = forward(problem, *tensors)
        ctx.problem, ctx.adjoint = problem, adjoint
        ctx.save_for_backward(*tensors[:-1], h)  # which begins with the last, h0
        return h

    @staticmethod
    @first_order_only
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return None, None, None, *ctx.adjoint(ctx.problem, *ctx.saved_tensors, g, ctx.needs_input_grad[3:])


@cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None
