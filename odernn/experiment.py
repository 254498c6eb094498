"""An experiment: a typed config becomes a target, data, a model and a trained run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from targets import ConvolutionalFunctional, Functional, NonlinearFunctional, inputs, kernels

from . import models, parameterizations
from .fields import VectorField
from .losses import relative_l2
from .models import ContinuousModel, SequenceModel
from .paths import Path as ControlPath
from .paths import interpolate
from .runs import RunDirectory
from .solvers import METHODS, Exact, Fused, Solver, TorchDiffEq, choose_solver, deviation
from .training import Data, Trainer, TrainingConfig
from .warm_start import embed

SOLVERS = ("auto", "exact", "fused", *METHODS)
DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float64": torch.float64, "float32": torch.float32}

# Sequences on which `--solver auto` measures its choice.
_TRIAL_SEQUENCES = 4
# Training and validation inputs are drawn from streams this far apart.
_VALIDATION_SEED_OFFSET = 1_000_000


@dataclass(frozen=True)
class ExperimentConfig:
    """What to learn, with what, how.

    Args:
        model: 'rnn', 'ssm', 'discrete_rnn' or 'discrete_ssm'.
        activation, recurrence, parameterization, hidden_size, num_layers: of the model, see `odernn.SequenceModel`.
        kernel: the target's rho: a name of `targets.KERNELS`, with parameters as in 'polynomial:exponent=1.1', or a callable as
            'module:function' or 'file.py:function'.
        nonlinearity: psi of the target psi(int rho x), 'none' for the linear functional.
        inputs: ensemble of the inputs, a name of `targets.INPUTS`.
        amplitude: standard deviation of the inputs.
        horizon: T, the inputs live on [0, T].
        points: samples of t, evenly spaced.
        train_size, validation_size: sequences.
        interpolation: of x between its samples: 'linear' or 'hold'.
        solver: 'exact', 'fused' (compiled rk4), a method of torchdiffeq, or 'auto': the cheapest that keeps to `solver_tolerance`
            on a few training sequences at the initial weights, see `odernn.solvers.choose_solver`.
        solver_tolerance: relative deviation that 'auto' allows from a tight dopri5.
        substeps: steps per sample of 'fused'.
        adjoint: gradients by torchdiffeq's adjoint (True; 'auto' is then dopri5) or by backpropagation (False).
        rtol, atol: tolerances of adaptive solvers.
        step_size: largest step of fixed-step solvers; None for one step per sample.
        warm_start: run directory of a narrower model to start from; None for a random start.
        seed: of weights, inputs and mini-batches.
        device: 'auto' takes CUDA where there is one.
        dtype: 'float64' or 'float32'.
        training: see `TrainingConfig`.
    """

    model: str = "rnn"
    activation: str = "tanh"
    recurrence: str = "dense"
    parameterization: str = "direct"
    hidden_size: int = 16
    num_layers: int = 1
    kernel: str = "polynomial"
    nonlinearity: str = "none"
    inputs: str = "random_fourier"
    amplitude: float = 1.0
    horizon: float = 10.0
    points: int = 101
    train_size: int = 128
    validation_size: int = 128
    interpolation: str = "linear"
    solver: str = "auto"
    solver_tolerance: float = 1e-5
    substeps: int = 1
    adjoint: bool = False
    rtol: float = 1e-6
    atol: float = 1e-8
    step_size: float | None = None
    warm_start: str | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "float64"
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for name, choices in (
            ("model", tuple(models.MODELS)),
            ("parameterization", tuple(parameterizations.PARAMETERIZATIONS)),
            ("solver", SOLVERS),
            ("device", DEVICES),
            ("dtype", tuple(DTYPES)),
            ("inputs", tuple(inputs.INPUTS)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, least in (("points", 2), ("train_size", 1), ("validation_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("horizon", "amplitude"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    def as_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ExperimentConfig:
        """Raises ValueError for keys that no version of this class writes."""
        values = dict(values)
        training = values.pop("training", {})
        for owner, given in ((cls, values), (TrainingConfig, training)):
            unknown = sorted(set(given) - {item.name for item in fields(owner)})
            if unknown:
                raise ValueError(f"unknown settings {', '.join(unknown)}: the run was written by another version")
        return cls(**values, training=TrainingConfig(**training))


class Experiment:
    """The parts that a config stands for, each built once and validated by building it.

    Raises:
        ValueError: settings that do not fit together.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config if config.warm_start is None else replace(config, warm_start=str(Path(config.warm_start).resolve()))
        self.device = _device(config.device)
        self.dtype = DTYPES[config.dtype]
        self.target = make_target(config)
        self.model = self._make_model()
        self.t = torch.linspace(0, config.horizon, config.points, dtype=torch.float64)
        x, y = self._sample(config.train_size, config.seed)
        x_validation, y_validation = self._sample(config.validation_size, config.seed + _VALIDATION_SEED_OFFSET)
        if not (y.any() and y_validation.any()):
            raise ValueError(f"kernel {config.kernel} gives targets that are all 0 on [0, {config.horizon:g}]: raise --horizon")
        self.data = Data(self._place(self.t), *map(self._place, (x, y, x_validation, y_validation)))
        self.solver = self._make_solver()
        self.config = self._with_solver(self.config)
        self.trainer = Trainer(
            self.model,
            self.data,
            config.training,
            solver=self.solver,
            interpolation=config.interpolation,  # type: ignore[arg-type]
        )

    def train(self, run: RunDirectory, progress: bool = True) -> dict[str, Any]:
        """Trains (or goes on training) in a run directory, and writes its summary.

        Returns:
            The summary, as written to summary.json.

        Raises:
            DivergedSolve: with the last good checkpoint kept.
        """
        if self.trainer.epoch == 0:
            # Saved before the first solve, so that there is something to go on with even if that one diverges.
            self._save(self.trainer, improved=True, run=run)
            self.trainer.best_error = self.trainer.validation_error()
        self.trainer.run(lambda trainer, improved: self._save(trainer, improved, run), progress=progress)
        self.model.load_state_dict(run.load_best())
        summary = self.summary()
        run.write_summary(summary)
        return summary

    def resume(self, run: RunDirectory) -> None:
        """Takes up the run where its checkpoint left it.

        Raises:
            ValueError: a checkpoint that does not belong to this experiment.
        """
        state = run.load_checkpoint()
        try:
            self.trainer.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"the checkpoint in {run.path} does not fit its config ({reason}): start the run again") from error

    def summary(self) -> dict[str, Any]:
        """What came out, of the weights that the model has now."""
        trainer = self.trainer
        with torch.no_grad():
            response = trainer.respond(self.data.x_validation)
            error = relative_l2(response.y, self.data.y_validation)
            margin, rate = self.model.stability_margin(), float(self.model.slowest_rate(trainer.step))
        return {
            "validation_relative_l2": float(error),
            "stability_margin": float(margin),
            "slowest_rate": rate,
            "evaluations_training": trainer.evaluations,
            "evaluations_per_solve": response.solution.evaluations,
            "seconds": trainer.seconds,
            "epochs": trainer.epoch,
            "best_epoch": trainer.best_epoch,
            "solver": str(self.solver or "none"),
            "solver_deviation": self.solver_deviation(),
            "device": str(self.device),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "quadrature_relative_error": quadrature_error(self.target),
            "versions": {name: version(name) for name in ("odernn", "torch", "torchdiffeq", "numpy", "scipy")},
        }

    def _save(self, trainer: Trainer, improved: bool, run: RunDirectory) -> None:
        # best.pt first: a checkpoint that counts this epoch must not stand beside weights of an earlier one.
        if improved:
            run.save_best(self.model.state_dict())
        run.save_checkpoint(trainer.state_dict())
        run.write_metrics(trainer.history)

    def _sample(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        draw: Callable[..., Tensor] = inputs.get(self.config.inputs)
        x = draw(self.t, size, channels=self.model.input_size, seed=seed, amplitude=self.config.amplitude)
        return x, self.target(x, self.t)

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype)

    def _make_model(self) -> SequenceModel:
        config = self.config
        model = models.MODELS[config.model](
            self.target.input_size or 1,
            config.hidden_size,
            self.target.output_size or 1,
            config.activation,
            config.recurrence,
            config.parameterization,
            num_layers=config.num_layers,
            seed=config.seed,
            dtype=self.dtype,
            device=self.device,
        )
        if config.warm_start is not None:
            embed(load_run(config.warm_start).model, model)
        return model

    def solver_deviation(self) -> float | None:
        """How far the solver is from a tight one on a few training sequences at the weights of this moment, relative L2 over the
        states; None for a discrete model, which has nothing to integrate."""
        return None if self.solver is None else deviation(self.solver, *self._trial())

    def _with_solver(self, config: ExperimentConfig) -> ExperimentConfig:
        """The config with the solver that 'auto' came to: a run is resumed and reloaded with the solver it started with."""
        solver = self.solver
        if config.solver != "auto" or solver is None:
            return config
        if isinstance(solver, Fused):
            return replace(config, solver="fused", substeps=solver.substeps)
        if isinstance(solver, TorchDiffEq):
            return replace(config, solver=solver.method, rtol=solver.rtol, atol=solver.atol, adjoint=solver.adjoint)
        return replace(config, solver="exact")

    def _trial(self) -> tuple[VectorField, ControlPath, Tensor, Tensor]:
        """What solvers are compared on: the field, and a few training sequences from rest."""
        t, x = self.data.t, self.data.x[:_TRIAL_SEQUENCES]
        path = interpolate(t, x, self.config.interpolation)  # type: ignore[arg-type]
        with torch.no_grad():
            return self.model.field(), path, t, self.model.rest_state().expand(x.shape[0], -1)

    def _make_solver(self) -> Solver | None:
        """The config's solver; None for a discrete model."""
        config = self.config
        if not isinstance(self.model, ContinuousModel):
            if config.solver != "auto":
                raise ValueError(f"model {config.model!r} is discrete and takes no solver, got {config.solver!r}: leave it out")
            return None
        if config.solver == "auto" and not config.adjoint:
            return choose_solver(*self._trial(), config.solver_tolerance)
        if config.solver == "auto":
            return TorchDiffEq("dopri5", config.rtol, config.atol, adjoint=True)
        if config.solver not in ("exact", "fused"):
            return TorchDiffEq(config.solver, config.rtol, config.atol, config.adjoint, config.step_size)
        solver = Exact() if config.solver == "exact" else Fused(substeps=config.substeps)
        if not solver.supports(self.model.field()):
            needs = "one layer that is linear in its state (model 'ssm', or activation 'linear')"
            needs = needs if config.solver == "exact" else "one layer"
            raise ValueError(f"solver {config.solver!r} needs {needs}: choose --solver auto")
        return solver


@dataclass(frozen=True)
class LoadedRun:
    """A trained run: the model with its best weights, and the experiment it came from."""

    model: SequenceModel
    target: Functional
    t: Tensor
    validation_inputs: Tensor
    solver: Solver | None
    config: ExperimentConfig


def load_run(directory: str | Path) -> LoadedRun:
    """Reads a run directory, on the CPU.

    Raises:
        ValueError: missing, truncated or not a run.
    """
    run = RunDirectory.open(Path(directory))
    config = replace(read_config(run), device="cpu", warm_start=None)
    experiment = Experiment(config)
    weights = run.load_best()
    try:
        experiment.model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {run.path} do not fit its config: {str(error).splitlines()[0]}") from error
    data = experiment.data
    return LoadedRun(experiment.model, experiment.target, data.t, data.x_validation, experiment.solver, config)


def read_config(run: RunDirectory) -> ExperimentConfig:
    """The experiment of a run directory.

    Raises:
        ValueError: its config is not one of an experiment.
    """
    try:
        return ExperimentConfig.from_dict(run.config()["experiment"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the config in {run.path} is not that of an experiment ({error}): give the --out of a run") from error


def make_target(config: ExperimentConfig) -> Functional:
    """The functional of the config's kernel and nonlinearity."""
    functional = ConvolutionalFunctional(kernels.load(config.kernel), config.interpolation)  # type: ignore[arg-type]
    return functional if config.nonlinearity == "none" else NonlinearFunctional(functional, config.nonlinearity)


def quadrature_error(target: Functional) -> float | None:
    """The relative error estimate of the target's quadrature, where it has one."""
    inner = target.functional if isinstance(target, NonlinearFunctional) else target
    return inner.quadrature_error if isinstance(inner, ConvolutionalFunctional) else None


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
