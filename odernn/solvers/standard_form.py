"""Solves in the form that backends take: one layer and its input, with flat ensembles and few cases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields import Layer
from ..paths import Kind, Path
from ..state_matrices import Structure


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit method: y_i = h + D sum_j A_ij k_j at t + c_i D, then h + D sum_i b_i k_i.

    Args:
        A: below the diagonal, row by row.
    """

    order: int
    A: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def c(self) -> tuple[float, ...]:
        return tuple(sum(row) for row in self.A)

    @property
    def stages(self) -> int:
        return len(self.b)


@dataclass(frozen=True)
class EmbeddedPair(Tableau):
    """A method whose last evaluation, at the end of a step, is the first of the next, with an estimate of the error of a step,
    D (sum_i e_i k_i + e_s k_s).

    Args:
        error: e, of the stages and of the rate at the end.
    """

    error: tuple[float, ...]


@dataclass(frozen=True)
class StepCount:
    """What the steps of an adaptive solve came to; steps are those of the block of sequences that tried most.

    Args:
        failure: in words; None where every block came to the end. The states of one that did not are nan from there on.
    """

    accepted: int
    rejected: int
    failure: str | None


@dataclass(frozen=True)
class Problem:
    """The equation dh/dt = sigma(W h + V [x, 1]) and its steps, but for the tensors.

    A backend is a module with `forward(problem, W, V, left, right, h0) -> h` and `backward(problem, W, V, left, right, h, g,
    wanted)`, which gives the gradients of (W, V, left, right, h0), or None where `wanted` is false. Shapes:

        W: (E, m, m); its diagonal (E, 1, m); or for pairs (E, 2, m), see `odernn.state_matrices`.
        V: (E, m, d + 1), [U b].
        left, right: as in `Inputs`.
        h, g: (E, batch, K + 1, m).
    """

    tableau: Tableau
    substeps: int
    steps: Tensor
    activation: str
    structure: Structure
    kind: Kind


@dataclass(frozen=True)
class Scan:
    """The recurrence h_{k+1} = W_k h_k + V_k [x left, x right, 1], but for the tensors.

    Its backend has `scan_forward` and `scan_backward`, with arguments as in `Problem`. Shapes, with S = K, or no such axis for
    matrices that stay the same:

        W: (E, S, m, m); its diagonal (E, S, 1, m); or for pairs (E, S, 2, m).
        V: (E, S, m, 2 d + 1).
    """

    structure: Structure
    kind: Kind


@dataclass(frozen=True)
class StandardWeights:
    """A layer and an initial state, with the ensemble flattened to one axis E.

    Args:
        ensemble: the axes that E stands for; E = 1 for none.
        W: (E, m, m), (E, 1, m) or (E, 2, m), see `odernn.state_matrices`.
        V: (E, m, d + 1), [U b].
        h0: (E, batch, m).
    """

    ensemble: tuple[int, ...]
    structure: Structure
    W: Tensor
    V: Tensor
    h0: Tensor


@dataclass(frozen=True)
class Inputs:
    """x at both ends of the K intervals of a path, (1 or E, batch, times, d).

    For 'linear' left and right are one tensor of K + 1 times, interval k running from its k-th to its next; for 'hold' one tensor
    of K times; for 'jumps' two. (A constant path counts as linear.)
    """

    kind: Kind
    left: Tensor
    right: Tensor


def standard_weights(layer: Layer, h0: Tensor) -> StandardWeights:
    W = layer.W.entries
    b = layer.U.new_zeros(layer.U.shape[:-1]) if layer.b is None else layer.b
    V = torch.cat([layer.U, b.unsqueeze(-1).expand(*layer.U.shape[:-1], 1)], -1)
    ensemble = torch.broadcast_shapes(W.shape[:-2], V.shape[:-2], h0.shape[:-2])
    W, V, h0 = (tensor.expand(*ensemble, *tensor.shape[-2:]).reshape(-1, *tensor.shape[-2:]) for tensor in (W, V, h0))
    return StandardWeights(tuple(ensemble), layer.W.structure, W, V, h0)


def inputs_of(path: Path, ensemble: tuple[int, ...]) -> Inputs:
    if path.kind == "jumps":
        return Inputs("jumps", _flat(path.start, ensemble), _flat(path.end, ensemble))
    if path.kind == "hold":
        held = _flat(path.start, ensemble)
        return Inputs("hold", held, held)
    samples = path.samples if path.kind == "linear" else torch.cat([path.start, path.end[..., -1:, :]], -2)
    samples = _flat(samples, ensemble)
    return Inputs("linear", samples, samples)


def _flat(x: Tensor, ensemble: tuple[int, ...]) -> Tensor:
    leading = x.shape[:-3]
    if leading.numel() > 1 or len(ensemble) == 0:
        x = x.expand(*ensemble, *x.shape[-3:])
    return x.reshape(-1, *x.shape[-3:])
