"""Sequences in chunks of time: truncated backpropagation, with the state carried from chunk to chunk.

The state that a chunk begins with counts as given, so gradients reach back to its start and memory is that of one chunk.
Source: R. J. Williams, J. Peng, Neural Computation 2 (1990) [WilliamsPeng1990].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..losses import mse, time_weights
from ..models import Response
from .data import Samples


@dataclass(frozen=True)
class Chunk:
    """A part of sequences in time.

    Args:
        samples: of the part, which begins with the sample that the part before ended with.
        new: index of its first target that no part before had: 0 at the start of the sequences, then 1.
        weights: of the errors, (time, 1); None for 1.
    """

    samples: Samples
    new: int
    weights: Tensor | None

    @property
    def mask(self) -> Tensor | None:
        return None if self.samples.mask is None else self.samples.mask[:, self.new :]

    @property
    def empty(self) -> bool:
        """Whether no new target is there."""
        return self.mask is not None and not self.mask.any()

    def loss(self, y: Tensor) -> Tensor:
        """Mean square error of the new outputs, weighted as in the whole; y: outputs at all samples of the chunk."""
        y, target = y[..., self.new :, :], self.samples.y[:, self.new :]
        if self.weights is None:
            return mse(y, target, self.mask)
        weights = self.weights[self.new :]
        return mse(weights * y, weights * target, self.mask)

    def squares(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """sum (y - target)^2 and sum target^2 over the new targets."""
        difference, target = y[..., self.new :, :] - self.samples.y[:, self.new :], self.samples.y[:, self.new :]
        if self.mask is not None:
            difference, target = torch.where(self.mask, difference, 0.0), torch.where(self.mask, target, 0.0)
        return difference.square().sum((-3, -2, -1)), target.square().sum()


def chunks(samples: Samples, steps: int, loss: str = "mse") -> Iterator[Chunk]:
    """The parts of so many time steps each, the last one of those that are left.

    Args:
        loss: a name of `odernn.losses.LOSSES`; its weights are those of the whole sequences.
    """
    count = samples.x.shape[1]
    weights = None
    if loss == "time_weighted":
        weights = time_weights(count, like=samples.y).unsqueeze(-1)
        if samples.mask is not None:
            weights = weights * samples.mask.sum() / (weights * samples.mask).sum()
    for begin in range(0, count - 1, steps):
        window = slice(begin, min(begin + steps, count - 1) + 1)
        mask = None if samples.mask is None else samples.mask[:, window]
        part = Samples(samples.t[..., window], samples.x[:, window], samples.y[:, window], mask)
        yield Chunk(part, int(begin > 0), None if weights is None else weights[window])


def relative_l2_in_chunks(respond: Callable[[Samples, Tensor | None], Response], samples: Samples, steps: int) -> Tensor:
    """`odernn.losses.relative_l2` of whole sequences, of which one part after the other is solved.

    Args:
        respond: (samples, h0) -> the response; None for the state that sequences start from.
    """
    h0, sums = None, []
    for chunk in chunks(samples, steps):
        response = respond(chunk.samples, h0)
        h0 = response.solution.h[..., -1, :]
        sums.append(chunk.squares(response.y))
    distance, size = (torch.stack(parts).sum(0) for parts in zip(*sums))
    return torch.where(size == 0, math.inf, (distance / size).sqrt())
