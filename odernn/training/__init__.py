"""Training of a model on samples of a target."""

from __future__ import annotations

from .config import MAX_SEED, OPTIMIZERS, REGULARIZERS, SCHEDULES, TrainingConfig
from .data import Data, Samples
from .data_files import read_data
from .least_squares import LeastSquares
from .optimizers import resolve
from .trainer import Trainer
from .training_run import train

__all__ = [
    "MAX_SEED",
    "OPTIMIZERS",
    "REGULARIZERS",
    "SCHEDULES",
    "Data",
    "LeastSquares",
    "Samples",
    "Trainer",
    "TrainingConfig",
    "read_data",
    "resolve",
    "train",
]
