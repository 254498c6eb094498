"""The recurrence of linear recurrent units: frequencies that are protected, and a trained normalisation of the input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .norms import MAX
from .raw_weights import RawWeight
from .recurrences import Pairs, of_pairs, register


@register
class LinearRecurrentUnit(Pairs):
    """Conjugate pairs with omega = e^theta_log and the input multiplied by gamma = e^gamma_log, which starts as the normalisation
    of [LRU] Eq 7, sqrt(1 - |l|^2) of one time unit, and is trained.

    A change of theta_log by beta moves omega to omega e^beta: a slow mode keeps a low frequency, so that the frequencies are
    protected as the moduli are. They are positive, in discrete time up to 2 pi. gamma takes the place of the parameterisation's
    own input scale. With 'exp' |l| = e^{-e^w} in discrete time (and in one unit of continuous time), as in the LRU; the
    parameterisation 'lru' is its residual form.

    Source: Orvieto et al., Resurrecting recurrent neural networks for long sequences, ICML 2023 [LRU], and its public codes.
    """

    name = "lru"

    def _create_frequencies(self, omega: Tensor) -> None:
        # in (0, 1]
        self.theta_log = nn.Parameter((1 - omega).log())
        self.gamma_log = nn.Parameter(self._normalization().log())

    def _normalization(self) -> Tensor:
        """sqrt(1 - |l|^2), l the factor by which a mode falls in one time unit."""
        value = self.parameterization(self.w.detach())
        scale = self.parameterization.input_scale(value)
        if scale is not None:
            return scale
        return (
            ((1 - value) * (1 + value)).sqrt() if self.parameterization.time == "discrete" else (-torch.expm1(2 * value)).sqrt()
        )

    def normalize(self) -> None:
        """Sets gamma to the normalisation of the modes of this moment, as at the start."""
        self._copy("gamma_log", self._normalization().log())

    def raw_weights(self) -> dict[str, RawWeight]:
        gamma = RawWeight(MAX, lambda weight, norm: torch.ones_like(weight), kind="input")
        return {"w": self._eigenvalue_weight(), "theta_log": RawWeight(MAX), "gamma_log": gamma}

    def frequencies(self) -> Tensor:
        return self.theta_log.exp()

    def _set_frequencies(self, omega: Tensor) -> None:
        if self.parameterization.time == "discrete":
            omega = omega % (2 * math.pi)
        if not (omega > 0).all():
            raise ValueError(
                "recurrence 'lru' has frequencies omega = e^theta_log > 0, got a block [[a, -w], [w, a]] with "
                f"w = {float(omega.min()) + 0.0:.3g}: choose recurrence 'complex'"
            )
        self._copy("theta_log", omega.log())

    def scale_input(self, U: Tensor) -> Tensor:
        return of_pairs(self.gamma_log.exp()) * U
