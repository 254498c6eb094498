"""The states of discrete models as one compiled operation for each layer.

A stack is solved layer by layer: at step k a layer is driven by what the one below emits at the same k, so all its inputs are
known once that one is. The plain form, step by step, is in `odernn.models.DiscreteModel`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.autograd import forward_ad

from targets import arguments

from ..fields import VectorField
from ..paths import Path
from .affine import affine_recurrence
from .backends import obstacle
from .fused import Fused
from .standard_form import inputs_of, standard_weights

_EULER = Fused("euler", backend="numba", check=False)


@dataclass(frozen=True)
class LayerSteps:
    """All steps of one layer in one operation.

    Args:
        run: h at all times, (..., batch, time, m), of a field of one layer, the path of its held samples, the times and h0.
        supports: whether it takes that field.
    """

    run: Callable[[VectorField, Path, Tensor, Tensor], Tensor]
    supports: Callable[[VectorField], bool]


def _euler(field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Tensor:
    return _EULER.solve(field, path, t, h0).h


def _affine(field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Tensor:
    weights = standard_weights(field.layers, h0)
    inputs = inputs_of(path, weights.ensemble)
    U, b = weights.V[..., :-1], weights.V[..., -1:]
    G = torch.cat([U, torch.zeros_like(U), b], -1)  # of [x_k, x_k, 1]
    h = affine_recurrence(weights.structure, inputs, weights.W, G, weights.h0)
    return h.reshape(*weights.ensemble, *h.shape[1:])


EULER = LayerSteps(_euler, _EULER.supports)
"""h_{k+1} = h_k + (t_{k+1} - t_k) F(h_k, x_k)."""
AFFINE = LayerSteps(_affine, lambda field: field.linear)
"""h_{k+1} = F(h_k, x_k) for F linear in h."""


def compiles(steps: LayerSteps, field: VectorField, t: Tensor, h0: Tensor) -> bool:
    """Whether `compiled_states` takes these. (It has no gradient in t.)"""
    return (
        type(field) is VectorField
        and steps.supports(_layer(field, 0))
        and obstacle("numba", h0) is None
        and h0.shape[-2] > 0
        and not t.requires_grad
    )


def step_lengths(t: Tensor, like: Tensor) -> Tensor:
    """Dt to the next sample, (K,), or (K, batch, 1) of times (batch, time), in the precision of a tensor."""
    steps = t.double().diff().to(like.dtype)
    return steps if t.ndim == 1 else steps.mT.unsqueeze(-1)


def transformed() -> bool:
    """Whether a solve is traced, transformed or differentiated in forward mode, which `compiled_states` is not for."""
    return arguments.traced() or torch.jit.is_tracing() or forward_ad._current_level >= 0


def compiled_states(steps: LayerSteps, field: VectorField, path: Path, t: Tensor, h0: Tensor) -> Tensor:
    """h at times t, (..., batch, time, L m), from h(t[0]) = h0, for samples x_k of the path at t_k.

    Args:
        h0: (..., batch, L m), with every leading axis of the weights.
    """
    z, found = path.samples, []
    for index, start in enumerate(h0.chunk(len(field.layers), -1)):
        h = steps.run(_layer(field, index), Path(t, "hold", z), t, start)
        z = field.activation(h) if field.emits_activation else h
        found.append(h)
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def _layer(field: VectorField, index: int) -> VectorField:
    return replace(field, layers=field.layers[index : index + 1])
