"""Continuous-time sequence models, the solvers that integrate them, and their training.

`odernn.targets` is what they learn, `odernn.analysis` is what can be said of them; both are packages of their own as well.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import shadowing  # noqa: F401  first: see there

# isort: split
from . import linear_recurrent_unit  # noqa: F401  registers its recurrence
from .activations import Activation
from .citations import citation
from .ensembles import member, replicate, stack
from .experiment import Experiment, ExperimentConfig, LoadedRun, load_run
from .generalization import InputMoments, generalization_measure, rescale_readout
from .initialization import initialize
from .leaky import LeakyRNN, LeakyVoltageRNN
from .models import ContinuousRNN, DiscreteRNN, DiscreteSSM, SequenceModel, StateSpaceModel
from .neural_ode import NeuralODE
from .paths import Path, heaviside, hold, linear, pulse
from .solvers import Adaptive, Auto, DivergedSolve, Exact, Fused, InaccurateSolve, Solution, Solver, TorchDiffEq
from .training import Data, Trainer, TrainingConfig, read_data, train
from .version import __version__
from .warm_start import widen

__all__ = [
    "Activation",
    "Adaptive",
    "Auto",
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
    "InputMoments",
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
    "citation",
    "generalization_measure",
    "heaviside",
    "hold",
    "initialize",
    "linear",
    "load_run",
    "member",
    "pulse",
    "read_data",
    "replicate",
    "rescale_readout",
    "stack",
    "train",
    "widen",
]

# The name is new here, the package is not: see shadowing.py.
targets = importlib.import_module(".targets", __name__)

if TYPE_CHECKING:
    from . import analysis as analysis
    from .analysis import run_experiment as run_experiment
else:

    def __getattr__(name: str) -> Any:
        """`odernn.analysis` and what draws, imported where it is used: it needs scipy."""
        if name in ("analysis", "run_experiment"):
            analysis = importlib.import_module(".analysis", __name__)
            return analysis if name == "analysis" else analysis.run_experiment
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
