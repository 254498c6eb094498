"""The leaky networks of neuroscience, of firing rates or of voltages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from targets import arguments

from .fields import VectorField
from .models import ContinuousModel, SequenceModel, register


def time_constant(tau: float | None, cls: type[SequenceModel]) -> dict[str, Any]:
    """The argument tau of a class of models, where there is one.

    Raises:
        ValueError: a class that has none.
    """
    if tau is not None and not issubclass(cls, _LeakyModel):
        raise ValueError(f"tau is the time constant of leaky models, which {cls.name!r} is not: leave it out")
    return {} if tau is None else {"tau": tau}


class _LeakyModel(ContinuousModel):
    def __init__(self, *args: Any, tau: float = 1.0, **options: Any) -> None:
        if isinstance(tau, Tensor | list | tuple):
            raise ValueError(
                f"tau is one number for all units, got {arguments.kind_of(tau)}: of units that differ, write a NeuralODE"
            )
        tau = arguments.number("tau", tau, above=0)
        super().__init__(*args, **options)
        self.tau = tau
        for layer in self.layer_weights:
            layer.tau = tau

    def config(self) -> dict[str, Any]:
        return {**super().config(), "tau": self.tau}

    def field(self) -> VectorField:
        layers = tuple(layer.effective() for layer in self.layer_weights)
        return VectorField(self.form, layers, self.activation, self.c, self.tau)

    def weight(self, layer: int = 0) -> Tensor:
        """W = I + tau A of one layer, (*ensemble, m, m), differentiable in the raw weights."""
        layer = arguments.count("layer", layer, least=0, most=self.num_layers - 1)
        A = self.layer_weights[layer].recurrence.state_matrix()
        return A.scaled_plus_identity(self.tau).to_dense()

    def set_weight(self, W: Tensor, layer: int = 0) -> None:
        """Sets the raw weights of one layer so that its W is this one, (m, m) or (*ensemble, m, m).

        Raises:
            ValueError: a W whose A = (W - I) / tau the recurrence and parameterisation cannot take, or no such layer.
        """
        W = arguments.real_tensor("W", W)
        if W.ndim < 2 or W.shape[-2:] != (self.hidden_size, self.hidden_size):
            raise ValueError(f"W must be (..., {self.hidden_size}, {self.hidden_size}), got {tuple(W.shape)}")
        eye = torch.eye(self.hidden_size, dtype=torch.float64, device=W.device)
        self.set_matrix((W.detach().double() - eye) / self.tau, layer)


@register
class LeakyRNN(_LeakyModel):
    """tau dh/dt = -h + sigma(W h + U x + b), y = c^T h: h are firing rates.

    The recurrence describes A = (W - I) / tau, the rates of the linear network dh/dt = A h + (U x + b) / tau that this is where
    sigma(z) = z: `spectrum`, `stability_margin`, `set_matrix` and every parameterisation mean A, as for `ContinuousRNN`. A unit
    whose sigma' is 0 decays at the rate 1 / tau, and for symmetric A with negative eigenvalues and 0 <= sigma' <= 1 the network
    is stable whatever its units do. `weight` and `set_weight` read and give W itself. The layers of a stack are fed by the h
    below.

    Args:
        input_size, hidden_size, output_size, activation, recurrence, parameterization: as for every `SequenceModel`, and so are
            the other options.
        tau: time constant > 0, of all units.

    Example:
        >>> import torch
        >>> from odernn import LeakyRNN
        >>> model = LeakyRNN(1, 100, 1, "relu", tau=0.1)
        >>> model.set_weight(0.5 / 100**0.5 * torch.randn(100, 100))

    Source: H. R. Wilson, J. D. Cowan, Biophys. J. 12 (1972) [WilsonCowan1972]; H. F. Song, G. R. Yang, X.-J. Wang, PLoS Comput.
    Biol. 12 (2016) [Song2016].
    """

    form = "rate"
    name = "leaky"


@register
class LeakyVoltageRNN(_LeakyModel):
    """tau dh/dt = -h + W sigma(h) + U x + b, y = c^T sigma(h): h are voltages (membrane potentials).

    Beside this it is as `LeakyRNN`: A = (W - I) / tau, and so on. The layers of a stack are fed by the sigma(h) below.

    Source: J. J. Hopfield, PNAS 81 (1984) [Hopfield1984]; H. Sompolinsky, A. Crisanti, H. J. Sommers, Phys. Rev. Lett. 61 (1988)
    [Sompolinsky1988].
    """

    form = "voltage"
    name = "leaky_voltage"
