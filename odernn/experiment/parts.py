"""The parts that a config stands for: model, times, inputs and solver. Its target is `targets.make_target`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from targets import Functional, StepResponseFunctional, inputs, make_target

from .. import models
from ..fields import VectorField
from ..leaky import time_constant
from ..models import SequenceModel
from ..paths import Path as ControlPath
from ..paths import interpolate
from ..solvers import Adaptive, Exact, Fused, Solver, TorchDiffEq, choose_solver
from ..solvers.fused import TAKEN
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


def model_of(config: ExperimentConfig, target: Functional) -> SequenceModel:
    """The untrained model, as wide at its ends as the target."""
    cls = models.MODELS.get(config.model) or own_model(config, target.input_size or 1, target.output_size or 1)
    if isinstance(cls, SequenceModel):
        return cls.to(device_of(config), DTYPES[config.dtype])
    return cls(
        target.input_size or 1,
        config.hidden_size,
        target.output_size or 1,
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


def inputs_of(config: ExperimentConfig, channels: int, *, validation: bool = False) -> Tensor:
    """The inputs of training or of validation, (size, points, channels), float64."""
    size = config.validation_size if validation else config.train_size
    seed = config.seed + (_VALIDATION_SEED_OFFSET if validation else 0)
    draw: Callable[..., Tensor] = inputs.get(config.inputs)
    return draw(times_of(config), size, channels=channels, seed=seed, amplitude=config.amplitude)


def trial_of(config: ExperimentConfig, model: SequenceModel, t: Tensor, x: Tensor) -> Trial:
    """A few of the sequences x from rest."""
    x = x[:_TRIAL_SEQUENCES]
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
