"""Descriptions of raw weights: how each is perturbed, slowed, widened and decayed.

The class that owns a weight describes it: a recurrence its own (`Recurrence.raw_weights`), a model all of them
(`SequenceModel.raw_weights`). Perturbations, warm starts, weight decay and stability ask there, so that a new recurrence is one
class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .norms import EUCLIDEAN, SPECTRAL, Norm

WeightKind = Literal["recurrent", "input", "bias", "readout"]
# The part of their initial U that new units keep.
_NEW_INPUTS = 0.1


def stay(weight: Tensor, norm: Norm) -> Tensor:
    """0: slowing has no meaning for this weight."""
    return torch.zeros_like(weight)


def grow(weight: Tensor, norm: Norm) -> Tensor:
    """The weight itself, of norm 1."""
    return weight / norm(weight.unsqueeze(0)).clamp_min(torch.finfo(weight.dtype).tiny)


def shrink(weight: Tensor, norm: Norm) -> Tensor:
    """The direction of norm 1 in which the weight falls fastest towards 0."""
    return -norm.maximizer(weight.unsqueeze(0)).squeeze(0)


def widen_entries(narrow: Tensor, wide: Tensor) -> Tensor:
    """The first entries along the last axis are the narrow ones."""
    wide[..., : narrow.shape[-1]] = narrow
    return wide


def widen_block(narrow: Tensor, wide: Tensor) -> Tensor:
    """The first diagonal block is the narrow matrix; nothing couples it to the rest."""
    m = narrow.shape[-1]
    wide[..., :m, m:] = 0
    wide[..., m:, :m] = 0
    wide[..., :m, :m] = narrow
    return wide


def widen_basis(narrow: Tensor, wide: Tensor) -> Tensor:
    """As `widen_block`, with an orthogonal second block: a block of an orthogonal matrix is not orthogonal itself."""
    m = narrow.shape[-1]
    if wide.shape[-1] > m:
        wide[..., m:, m:] = torch.linalg.qr(wide[..., m:, m:]).Q
    return widen_block(narrow, wide)


def _widen_input(narrow: Tensor, wide: Tensor) -> Tensor:
    wide *= _NEW_INPUTS
    m, d = narrow.shape[-2:]
    wide[..., :m, :] = 0  # of layers above the first: the new units below
    wide[..., :m, :d] = narrow
    return wide


def _widen_readout(narrow: Tensor, wide: Tensor) -> Tensor:
    return widen_entries(narrow, wide.zero_())


@dataclass(frozen=True)
class RawWeight:
    """Description of one raw weight.

    Args:
        norm: of its perturbations.
        slow_direction: (weight, norm) -> a direction of norm 1 at most that slows the decay of every mode, or amplifies input or
            readout; without ensemble axes. The norm is that of the perturbation: `norm`, or `norms.MAX` in its place.
        widen: (narrow, wide) -> the weight with which the wide model computes what the narrow one does. wide: what the wide
            model had, a copy that may be changed in place. New units keep what they had, uncoupled from the old ones.
        decays: whether weight decay touches it.
        kind: what it does: 'recurrent' where W is made of it.
    """

    norm: Norm
    slow_direction: Callable[[Tensor, Norm], Tensor] = stay
    widen: Callable[[Tensor, Tensor], Tensor] = widen_entries
    decays: bool = False
    kind: WeightKind = "recurrent"

    @property
    def recurrent(self) -> bool:
        return self.kind == "recurrent"


# The weights that every layer and every model have beside W.
INPUT = RawWeight(SPECTRAL, grow, _widen_input, decays=True, kind="input")
BIAS = RawWeight(EUCLIDEAN, kind="bias")
READOUT = RawWeight(SPECTRAL, grow, _widen_readout, decays=True, kind="readout")
