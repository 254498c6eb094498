"""Experiments: a typed config becomes a target, data, a model and a trained run."""

from __future__ import annotations

from .build import Experiment
from .config import DEVICES, DTYPES, INITIALIZATIONS, INTERPOLATIONS, SOLVERS, ExperimentConfig
from .load import LoadedRun, load_run, read_config

__all__ = [
    "DEVICES",
    "DTYPES",
    "INITIALIZATIONS",
    "INTERPOLATIONS",
    "SOLVERS",
    "Experiment",
    "ExperimentConfig",
    "LoadedRun",
    "load_run",
    "read_config",
]
