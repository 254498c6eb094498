"""Solves in the form that backends take: a stack of equal layers and its input, with flat ensembles and few cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

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
    """The equation of a stack of L layers of m states, and its steps, but for the tensors:

        dh_l/dt = sigma(z_l),    or where states leak    dh_l/dt = -h_l + sigma(z_l),    t in units of tau,
        z_l = W_l h_l + U_l phi(h_{l-1}) + b_l,    phi(h_0) = x,    or with phi inside, W_l phi(h_l) for W_l h_l.

    A backend is a module with `forward(problem, W, V, left, right, h0) -> h` and `backward(problem, W, V, left, right, h, g,
    wanted)`, which gives the gradients of (W, V, left, right, h0), or None where `wanted` is false. Shapes:

        W: (E, rows, m), one below the other: W_l of every layer, each as (m, m), its diagonal (1, m) or for pairs (2, m), see
            `odernn.state_matrices`; then U_l of the layers above the first, (m, m) each.
        V: (E, L m, d + 1), [U b], with U = 0 for the layers above the first.
        left, right: as in `Inputs`.
        h, g: (E, batch, K + 1, L m).

    Args:
        steps: lengths of the K intervals, (K,), or (batch, K) where each sequence has its own.
        activation, between: the kernels' names of sigma and phi.
        layers: L.
        leaks: whether states do.
        inside: whether W multiplies phi(h), too.
    """

    tableau: Tableau
    substeps: int
    steps: Tensor
    activation: str
    structure: Structure
    kind: Kind
    layers: int = 1
    between: str = "linear"
    leaks: bool = False
    inside: bool = False

    @property
    def emits(self) -> bool:
        """Whether products read something else than states."""
        return (self.layers > 1 or self.inside) and self.between != "linear"


@dataclass(frozen=True)
class Scan:
    """The recurrence h_{k+1} = W_k h_k + V_k [x left, x right, 1], but for the tensors.

    Its backend has `scan_forward` and `scan_backward`, with arguments as in `Problem`. Shapes, with S = K, or no such axis for
    matrices that stay the same:

        W: (E, S, m, m); its diagonal (E, S, 1, m); or for pairs (E, S, 2, m).
        V: (E, S, m, 2 d + 1).
    """

    layers: ClassVar[int] = 1

    structure: Structure
    kind: Kind


@dataclass(frozen=True)
class StandardWeights:
    """The tensors W and V of a `Problem`, and its initial state (E, batch, L m), with the ensemble flattened to one axis E.

    Args:
        ensemble: the axes that E stands for; E = 1 for none.
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


def stacks(layers: Sequence[Layer]) -> bool:
    """Whether these layers make a `Problem`: of one size, and each W of one structure."""
    if not layers:
        return False
    first = layers[0]
    return all(layer.W.structure == first.W.structure and layer.U.shape[-2] == first.U.shape[-2] for layer in layers)


def standard_weights(layers: Sequence[Layer], h0: Tensor) -> StandardWeights:
    input_size, above = layers[0].U.shape[-1], [layer.U for layer in layers[1:]]
    V = [_with_bias(layers[0], layers[0].U)]
    V += [_with_bias(layer, layer.U.new_zeros(1).expand(*layer.U.shape[:-1], input_size)) for layer in layers[1:]]
    W = [*(layer.W.entries for layer in layers), *above]
    ensemble = torch.broadcast_shapes(*(tensor.shape[:-2] for tensor in (*W, *V, h0)))
    W_all, V_all, h0 = (_flat_rows(tensors, ensemble) for tensors in (W, V, [h0]))
    return StandardWeights(tuple(ensemble), layers[0].W.structure, W_all, V_all, h0)


def _with_bias(layer: Layer, U: Tensor) -> Tensor:
    b = U.new_zeros(U.shape[:-1]) if layer.b is None else layer.b
    return torch.cat([U, b.unsqueeze(-1).expand(*U.shape[:-1], 1)], -1)


def _flat_rows(tensors: list[Tensor], ensemble: torch.Size) -> Tensor:
    """The tensors one below the other, (E, rows, columns)."""
    flat = [tensor.expand(*ensemble, *tensor.shape[-2:]).reshape(-1, *tensor.shape[-2:]) for tensor in tensors]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)


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
