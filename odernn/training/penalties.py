"""What is added to the loss: weight decay, the penalty of the stability margin, a regulariser."""

from __future__ import annotations

import math

from torch import Tensor

from ..generalization import InputMoments, generalization_measure, measured_field
from ..losses import stability_penalty
from ..models import SequenceModel
from ..paths import Interpolation
from .config import TrainingConfig
from .data import Data


class Penalties:
    """The penalties of a config for one model.

    Args:
        data: whose training inputs the regulariser takes mean and covariance of, once for all epochs and mini-batches.
        interpolation: of these inputs.

    Raises:
        ValueError: a model that the regulariser is not for, or inputs that it cannot take the covariance of.
    """

    def __init__(self, model: SequenceModel, data: Data, config: TrainingConfig, interpolation: Interpolation) -> None:
        self.model, self.config = model, config
        weights = model.raw_weights()
        self._decaying = [tensor for name, tensor in model.named_parameters() if weights[name].decays]
        self._moments: InputMoments | None = None
        if config.regularizer != "none":
            measured_field(model, data.input_size)  # for what it refuses
            self._moments = InputMoments.measured(data.t, data.x, interpolation)

    def added_to(self, loss: Tensor) -> Tensor:
        """The loss with all penalties, one value per ensemble member."""
        config = self.config
        if config.weight_decay and config.optimizer != "adamw":
            squares = sum(tensor.square().sum() for tensor in self._decaying) / math.prod(self.model.ensemble)
            loss = loss + config.weight_decay * squares
        if config.margin_weight:
            loss = loss + config.margin_weight * stability_penalty(self.model, config.margin)
        if self._moments is not None and config.strength:
            loss = loss + config.strength * generalization_measure(self.model, self._moments)
        return loss
