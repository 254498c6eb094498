"""Training of a model on samples of a target."""

from __future__ import annotations

from .config import MAX_SEED, OPTIMIZERS, SCHEDULES, TrainingConfig
from .data import Data
from .least_squares import LeastSquares
from .optimizers import resolve
from .trainer import Trainer, train

__all__ = ["MAX_SEED", "OPTIMIZERS", "SCHEDULES", "Data", "LeastSquares", "Trainer", "TrainingConfig", "resolve", "train"]
