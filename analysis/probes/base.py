"""The probes of [IA] Def 3.1 and App F, and what a system gives back to one.

For an input value x of shape (d,), with |x|_inf its amplitude:

    heaviside  u^x_t = x for t >= 0, 0 before         response d/dt H_t(u^x)
    impulse    i^x: x for one unit of time at t = 0   response H_t(i^x)
    reversed   r^x_t = x for t < 0, 0 from t = 0 on   response d/dt H_t(r^x)

with the zero-input response subtracted (H_t(0) = 0 by convention). For a linear functional all three are rho(t)^T x up to sign.
For a nonlinear or a sampled system they are defined in its class. At t < 0 every response is 0: a causal system has not met the
heaviside and impulse inputs, and has settled under the reversed one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Probe = Literal["heaviside", "impulse", "reversed"]
PROBES: tuple[str, ...] = get_args(Probe)

# The reversed probe holds x until the system has settled; it gives up after so many doublings of the time.
MAX_DOUBLINGS = 4


@dataclass(frozen=True)
class ProbeResponse:
    """The response of a system to one probe.

    Args:
        values: (*ensemble, batch, time, output), zero-input response subtracted, not divided by |x|.
        error: (*ensemble, batch), numerical error of |values|: rounding, tolerance of the solver, a held input that had not
            settled.
        sequences: input sequences that the system was run on.
    """

    values: Tensor
    error: Tensor
    sequences: int


class ProbedSystem(ABC):
    """A system bound to the times of its responses.

    Attributes:
        name: for legends.
        input_size: d.
        ensemble: leading axes of the response.
        linear: whether the response is linear in x.
        dtype, device: of the inputs it takes.
        dt: time of one sample, for sampled systems.
    """

    name: str
    input_size: int
    ensemble: tuple[int, ...] = ()
    linear: bool = False
    dtype: torch.dtype
    device: torch.device
    dt: float | None = None

    @abstractmethod
    def respond(self, x: Tensor, probe: Probe, *, fast: bool = False) -> ProbeResponse:
        """The responses to inputs x, (*ensemble, batch, d), differentiable in x where the system is.

        `fast` allows a coarser solver: the search for a maximiser asks for it.
        """


def with_zero_input(x: Tensor) -> Tensor:
    """The inputs and, as the last of the batch, the zero input, whose response is subtracted from theirs."""
    return torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)
