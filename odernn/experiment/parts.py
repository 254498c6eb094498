"""The parts that a config stands for: target, data, model, times, inputs and solver."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from targets import Functional, StepResponseFunctional, grids, inputs, make_target

from .. import models
from ..fields import VectorField
from ..leaky import time_constant
from ..models import SequenceModel
from ..paths import Path as ControlPath
from ..paths import interpolate
from ..solvers import Adaptive, Exact, Fused, Solver, TorchDiffEq, choose_solver
from ..solvers.fused import TAKEN
from ..training import Data, read_data
from .config import DTYPES, ExperimentConfig
from .named_models import activation_of, own_model

# Solvers are compared on a field, a path, times and initial states.
Trial = tuple[VectorField, ControlPath, Tensor, Tensor]

# Sequences on which `--solver auto` measures its choice.
_TRIAL_SEQUENCES = 4
# Training and validation inputs are drawn from streams this far apart.
_VALIDATION_SEED_OFFSET = 1_000_000


def target_of(config: ExperimentConfig) -> StepResponseFunctional:
    return make_target(config.kernel, config.nonlinearity, config.interpolation)


def device_of(config: ExperimentConfig) -> torch.device:
    """The device; 'auto' is CUDA where there is one."""
    name = config.device
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def data_of(config: ExperimentConfig) -> tuple[ExperimentConfig, Data]:
    """The data of the file that a config names, in float64 on the CPU, and the config with that file's path and checksum.

    Raises:
        ValueError: as `read_data`, or a file that is not the one that the config has the checksum of.
    """
    assert config.data is not None
    path = Path(config.data).resolve()
    if config.data_checksum is not None and not path.is_file():
        raise ValueError(f"{path}: the file that the run was trained on is not there; put it back")
    data = read_data(path, validation_fraction=config.validation_fraction, seed=config.seed)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    if config.data_checksum not in (None, checksum):
        raise ValueError(f"{path}: is not the file that the run was trained on (its checksum differs); put that one back")
    return replace(config, data=str(path), data_checksum=checksum), data


def sizes_of(target: Functional | None, data: Data | None) -> tuple[int, int]:
    """Channels of input and output."""
    if data is not None:
        return data.input_size, data.output_size
    assert target is not None
    return target.input_size or 1, target.output_size or 1


def model_of(config: ExperimentConfig, target: Functional | None, data: Data | None = None) -> SequenceModel:
    """The untrained model, as wide at its ends as the target or the data."""
    input_size, output_size = sizes_of(target, data)
    cls = models.MODELS.get(config.model) or own_model(config, input_size, output_size)
    if isinstance(cls, SequenceModel):
        return cls.to(device_of(config), DTYPES[config.dtype])
    return cls(
        input_size,
        config.hidden_size,
        output_size,
        activation_of(config),
        config.recurrence,
        config.parameterization,
        num_layers=config.num_layers,
        seed=config.seed,
        dtype=DTYPES[config.dtype],
        device=device_of(config),
        **time_constant(config.tau, cls),
    )


def times_of(config: ExperimentConfig) -> Tensor:
    """(points,), float64."""
    return torch.linspace(0, config.horizon, config.points, dtype=torch.float64)


def probe_times(t: Tensor) -> Tensor:
    """The times of a memory function of data: even, from 0, float64, as many as theirs and as long as their longest sequence."""
    return torch.linspace(0, grids.span(t), t.shape[-1], dtype=torch.float64)


def inputs_of(config: ExperimentConfig, channels: int, *, validation: bool = False) -> Tensor:
    """The inputs of training or of validation, (size, points, channels), float64."""
    size = config.validation_size if validation else config.train_size
    seed = config.seed + (_VALIDATION_SEED_OFFSET if validation else 0)
    draw: Callable[..., Tensor] = inputs.get(config.inputs)
    return draw(times_of(config), size, channels=channels, seed=seed, amplitude=config.amplitude)


def trial_of(config: ExperimentConfig, model: SequenceModel, t: Tensor, x: Tensor) -> Trial:
    """A few of the sequences x from rest."""
    x, t = x[:_TRIAL_SEQUENCES], t if t.ndim == 1 else t[:_TRIAL_SEQUENCES]
    with torch.no_grad():
        return model.field(), interpolate(t, x, config.interpolation), t, model.rest_state().expand(x.shape[0], -1)


def solver_of(config: ExperimentConfig, model: SequenceModel, t: Tensor, x: Callable[[], Tensor]) -> Solver | None:
    """The solver; None for a discrete model.

    Args:
        config: names it.
        model: for which it is.
        t: times.
        x: gives training inputs, on which 'auto' measures its choice.

    Raises:
        ValueError: a solver that does not support the model.
    """
    if model.is_map:
        if config.solver != "auto":
            raise ValueError(f"model {config.model!r} is discrete and takes no solver, got {config.solver!r}: leave it out")
        return None
    if config.solver == "auto" and not config.adjoint:
        return choose_solver(*trial_of(config, model, t, x()), config.solver_tolerance)
    if config.solver == "auto":
        return TorchDiffEq("dopri5", config.rtol, config.atol, adjoint=True)
    if config.solver not in ("exact", "fused", "adaptive"):
        return TorchDiffEq(config.solver, config.rtol, config.atol, config.adjoint, config.step_size)
    solver: Solver = Exact() if config.solver == "exact" else Fused(substeps=config.substeps)
    if config.solver == "adaptive":
        solver = Adaptive(rtol=config.rtol, atol=config.atol)
    if not solver.supports(model.field()):
        needs = "one layer that is linear in its state (model 'ssm', or activation 'linear')"
        needs = needs if config.solver == "exact" else TAKEN
        raise ValueError(f"solver {config.solver!r} needs {needs}: choose --solver auto")
    return solver


def with_solver(config: ExperimentConfig, solver: Solver) -> ExperimentConfig:
    """The config with the solver that 'auto' came to: a run is resumed and reloaded with the solver that it had."""
    if isinstance(solver, Fused):
        return replace(config, solver="fused", substeps=solver.substeps, solver_chosen=True)
    if isinstance(solver, Adaptive):
        rtol, atol = solver.tolerances
        return replace(config, solver="adaptive", rtol=rtol, atol=atol, solver_chosen=True)
    if isinstance(solver, TorchDiffEq):
        config = replace(config, solver=solver.method, rtol=solver.rtol, atol=solver.atol, adjoint=solver.adjoint)
        # With the adjoint 'auto' is dopri5 at the tolerances given, which nobody measured.
        return replace(config, solver_chosen=not solver.adjoint)
    return replace(config, solver="exact", solver_chosen=True)
