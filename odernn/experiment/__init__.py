"""Experiments: a typed config becomes a target, data, a model and a trained run."""

from __future__ import annotations

from .build import Experiment, LoadedRun, load_run, make_target, quadrature_error, read_config
from .config import DEVICES, DTYPES, INTERPOLATIONS, SOLVERS, ExperimentConfig

__all__ = [
    "DEVICES",
    "DTYPES",
    "INTERPOLATIONS",
    "SOLVERS",
    "Experiment",
    "ExperimentConfig",
    "LoadedRun",
    "load_run",
    "make_target",
    "quadrature_error",
    "read_config",
]
