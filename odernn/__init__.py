"""Continuous-time sequence models, the solvers that integrate them, and their training."""

from __future__ import annotations

from . import shadowing  # noqa: F401  first: see there

# isort: split
from . import linear_recurrent_unit  # noqa: F401  registers its recurrence
from .activations import Activation
from .ensembles import member, replicate, stack
from .experiment import Experiment, ExperimentConfig, LoadedRun, load_run
from .leaky import LeakyRNN, LeakyVoltageRNN
from .models import ContinuousRNN, DiscreteRNN, DiscreteSSM, SequenceModel, StateSpaceModel
from .neural_ode import NeuralODE
from .paths import Path, heaviside, hold, linear, pulse
from .solvers import Adaptive, DivergedSolve, Exact, Fused, InaccurateSolve, Solution, Solver, TorchDiffEq
from .training import Data, Trainer, TrainingConfig, train
from .version import __version__
from .warm_start import widen

__all__ = [
    "Activation",
    "Adaptive",
    "ContinuousRNN",
    "Data",
    "DiscreteRNN",
    "DiscreteSSM",
    "DivergedSolve",
    "Exact",
    "Experiment",
    "ExperimentConfig",
    "Fused",
    "InaccurateSolve",
    "LeakyRNN",
    "LeakyVoltageRNN",
    "LoadedRun",
    "NeuralODE",
    "Path",
    "SequenceModel",
    "Solution",
    "Solver",
    "StateSpaceModel",
    "TorchDiffEq",
    "Trainer",
    "TrainingConfig",
    "__version__",
    "heaviside",
    "hold",
    "linear",
    "load_run",
    "member",
    "pulse",
    "replicate",
    "stack",
    "train",
    "widen",
]
