"""Training of a model on samples of a target."""

from __future__ import annotations

from .config import MAX_SEED, OPTIMIZERS, SCHEDULES, TrainingConfig
from .data import Data
from .trainer import Trainer, train

__all__ = ["MAX_SEED", "OPTIMIZERS", "SCHEDULES", "Data", "Trainer", "TrainingConfig", "train"]
