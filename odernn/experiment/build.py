"""An experiment: a config becomes a target, data, a model and a trained run, and a run directory becomes these again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from targets import ConvolutionalFunctional, Functional, NonlinearFunctional, inputs, kernels

from .. import models
from ..fields import VectorField
from ..losses import relative_l2
from ..models import ContinuousModel, SequenceModel
from ..paths import Path as ControlPath
from ..paths import interpolate
from ..runs import RunDirectory
from ..seals import fingerprint
from ..solvers import DivergedSolve, Exact, Fused, Solver, TorchDiffEq, choose_solver, deviation
from ..solvers.base import unchecked
from ..solvers.choice import MAX_SUBSTEPS, estimated_deviation
from ..training import Data, Trainer
from ..warm_start import embed
from .config import DTYPES, ExperimentConfig

# Sequences on which `--solver auto` measures its choice.
_TRIAL_SEQUENCES = 4
# Training and validation inputs are drawn from streams this far apart.
_VALIDATION_SEED_OFFSET = 1_000_000
# Targets that are kept with a run: so many values, and how far they may move (relative to the largest) on another machine.
_KEPT_TARGETS, _TARGETS_MAY_MOVE = 16, 1e-6
# What 'auto' sets.
_SOLVER_SETTINGS = ("solver", "substeps", "rtol", "atol", "adjoint")
# The estimate from half the steps stands for the deviation up to this factor (it presumes the method's order, which a kink of the
# activation takes away).
_ESTIMATE_FACTOR = 2.0
# No tighter tolerance is tried than that of the solve that others are compared with.
_TIGHTEST = 1e-9


class Experiment:
    """The parts that a config stands for, each built once and validated by building it.

    Args:
        config: what to build.
        warm: whether the weights begin at the config's warm start, where it has one; not needed where weights are loaded.
        trust_code: whether code that the run of the warm start names may be run, see `read_config`.

    Raises:
        ValueError: settings that do not fit together.
    """

    def __init__(self, config: ExperimentConfig, *, warm: bool = True, trust_code: bool = False) -> None:
        self.config = config if config.warm_start is None else replace(config, warm_start=str(Path(config.warm_start).resolve()))
        self.device = _device(config.device)
        self.dtype = DTYPES[config.dtype]
        self.target = make_target(config)
        self.model = self._make_model()
        if warm and config.warm_start is not None:
            # Code that this config names itself has run already.
            embed(load_run(config.warm_start, trust_code=trust_code, trusted=config.kernel).model, self.model)
        self.t = torch.linspace(0, config.horizon, config.points, dtype=torch.float64)
        x, y = self._sample(config.train_size, config.seed)
        x_validation, y_validation = self._sample(config.validation_size, config.seed + _VALIDATION_SEED_OFFSET)
        if not (y.any() and y_validation.any()):
            raise ValueError(f"kernel {config.kernel} gives targets that are all 0 on [0, {config.horizon:g}]: raise --horizon")
        self._targets = _some_of(y_validation)
        self.data = Data(self._place(self.t), *map(self._place, (x, y, x_validation, y_validation)))
        self.solver = self._make_solver()
        if config.solver == "auto" and self.solver is not None:
            self.config = _chosen(self.config, self.solver)
        self._finer = False  # whether the config on disk is behind
        self.trainer = Trainer(
            self.model,
            self.data,
            config.training,
            solver=None if self.solver is None else unchecked(self.solver),
            interpolation=config.interpolation,  # type: ignore[arg-type]
        )
        self.trainer.before_validation = self._keep_to_tolerance

    def record(self) -> dict[str, Any]:
        """What config.json holds: the settings, and some targets, which tell whether the kernel's code has changed."""
        return {"experiment": self.config.as_dict(), "targets": self._targets}

    def train(self, run: RunDirectory, progress: bool = True) -> dict[str, Any]:
        """Trains (or goes on training) in a run directory, and writes its summary.

        Returns:
            The summary, as written to summary.json.

        Raises:
            DivergedSolve: with the last good checkpoint kept.
        """
        with run.writing():
            if self.trainer.epoch == 0:
                self.trainer.keep_weights()
            # First of all, so that there is something to go on with even if the first solve diverges; and a run that is resumed
            # may have been killed between two files, or be of an earlier version.
            self._save(self.trainer, improved=True, run=run)
            run.write_config(self.record())
            if self.trainer.epoch == 0:
                self.trainer.best_error = self.trainer.validation_error()
            self.trainer.run(lambda trainer, improved: self._save(trainer, improved, run), progress=progress)
            self.model.load_state_dict(run.load_best())
            self._settle_solver()
            self._write_solver(run)
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
            if "experiment" in state:
                self._require_same_experiment(state["experiment"])
            if "best" not in state:  # an earlier version
                state["best"] = run.load_best()
            self.trainer.load_state_dict(state)
            if state.get("solver") is not None:
                self._take(replace(self.config, **state["solver"]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise ValueError(f"the checkpoint in {run.path} does not fit its config ({reason}): start the run again") from error
        _require_targets(run, self._targets)
        done, asked = self.trainer.epoch, self.config.training.epochs
        if asked < done:
            raise ValueError(f"the run in {run.path} has {done} epochs already, got {asked}: give at least {done} --epochs")
        then, now = state.get("environment", {}), self.environment()
        changed = [f"{name} ({then[name]} before, {now.get(name)} now)" for name in then if then[name] != now.get(name)]
        if changed:
            warnings.warn(f"{run.path} goes on with another {', '.join(changed)}: the last digits may differ", stacklevel=2)

    def environment(self) -> dict[str, Any]:
        """What the last digits of a training depend on beside its settings."""
        processor = torch.backends.cpu.get_cpu_capability()
        return {"number of threads": torch.get_num_threads(), "processor": processor, "device": str(self.device), **_packages()}

    def _require_same_experiment(self, values: dict[str, Any]) -> None:
        theirs, ours = ExperimentConfig.from_dict(values).identity(), self.config.identity()
        for settings in (theirs, ours):
            settings |= {f"training.{name}": value for name, value in settings.pop("training").items()}
        changed = [f"{name} is {ours[name]!r} there, {theirs[name]!r} here" for name in ours if ours[name] != theirs[name]]
        if changed:
            raise ValueError("; ".join(changed))

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
        identity = fingerprint(self.config.identity())
        # First what the other files are made from.
        state = {**trainer.state_dict(), "experiment": self.config.as_dict(), "environment": self.environment()}
        # The checkpoint says which solver the next epoch starts with; the config, which one answers for the best weights.
        state["solver"] = self._solver_settings()
        run.save_checkpoint(state, identity)
        if improved:
            run.save_best(trainer.best_weights, identity)
        self._write_solver(run)
        run.write_metrics(trainer.history)

    def _solver_settings(self) -> dict[str, Any] | None:
        return {name: getattr(self.config, name) for name in _SOLVER_SETTINGS} if self.config.solver_chosen else None

    def _write_solver(self, run: RunDirectory) -> None:
        """Into the config on disk, if finer steps were taken since it was written."""
        if self._finer:
            run.write_config(self.record())
            self._finer = False

    def _sample(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        draw: Callable[..., Tensor] = inputs.get(self.config.inputs)
        x = draw(self.t, size, channels=self.model.input_size, seed=seed, amplitude=self.config.amplitude)
        return x, self.target(x, self.t)

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self.device, dtype=self.dtype)

    def _make_model(self) -> SequenceModel:
        config = self.config
        return models.MODELS[config.model](
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

    def solver_deviation(self) -> float | None:
        """How far the solver is from a tight one on a few training sequences at the weights of this moment, relative L2 over the
        states; None for a discrete model, which has nothing to integrate, and where the tight solve failed."""
        try:
            return None if self.solver is None else deviation(self.solver, *self._trial())
        except DivergedSolve:
            return None

    def _keep_to_tolerance(self) -> None:
        """Takes finer steps where 'auto' chose the solver and the weights have left the range that its choice holds for."""
        if not (self.config.solver_chosen and isinstance(self.solver, Fused)):
            return
        tolerance, trial = self.config.solver_tolerance, self._trial()
        try:
            if _ESTIMATE_FACTOR * estimated_deviation(self.solver, *trial) <= tolerance:
                return  # the usual case: the reference below takes as long as an epoch
            found = deviation(self.solver, *trial)
            if found > tolerance:
                solver = choose_solver(*trial, tolerance)
                self._say(
                    f"after epoch {self.trainer.epoch + 1} {self.solver} is {found:.1e} from a tight solve: from here on {solver}"
                )
                self._take(_chosen(self.config, solver))
        except DivergedSolve:
            return  # at these weights nothing solves it, and the validation says so

    def _settle_solver(self) -> None:
        """At the weights that are reported: steps so fine that still finer ones change the validation error by no more than the
        tolerance."""
        if not self.config.solver_chosen:
            return
        before = self.solver
        self._keep_to_tolerance()
        error = self.trainer.validation_error()
        while (finer := _finer(self.solver, self.dtype)) is not None:
            coarse, config = error, self.config
            self._take(_chosen(self.config, finer))
            error = self.trainer.validation_error()
            if abs(error - coarse) <= self.config.solver_tolerance:
                self._take(config)
                break
        if self.solver != before:
            self._say(f"the best weights are judged with {self.solver} (trained with {before})")

    def _take(self, config: ExperimentConfig) -> None:
        """Goes on with the solver of this config."""
        self._finer = True
        self.config = config
        self.solver = self._make_solver()
        self.trainer.solver = None if self.solver is None else unchecked(self.solver)

    def _say(self, line: str) -> None:
        tqdm.write(line)

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


def _finer(solver: Solver | None, dtype: torch.dtype) -> Solver | None:
    """The solver with half the steps, or a tenth of the tolerance; None where there is nothing finer of its kind."""
    if isinstance(solver, Fused) and solver.substeps < MAX_SUBSTEPS:
        return replace(solver, substeps=2 * solver.substeps)
    if isinstance(solver, TorchDiffEq) and solver.rtol > _TIGHTEST and solver.rtol > 10 * torch.finfo(dtype).eps:
        return replace(solver, rtol=solver.rtol / 10, atol=solver.atol / 10)
    return None


def _chosen(config: ExperimentConfig, solver: Solver) -> ExperimentConfig:
    """The config with the solver that 'auto' came to: a run is resumed and reloaded with the solver that it had."""
    if isinstance(solver, Fused):
        return replace(config, solver="fused", substeps=solver.substeps, solver_chosen=True)
    if isinstance(solver, TorchDiffEq):
        config = replace(config, solver=solver.method, rtol=solver.rtol, atol=solver.atol, adjoint=solver.adjoint)
        # With the adjoint 'auto' is dopri5 at the tolerances given, which nobody measured.
        return replace(config, solver_chosen=not solver.adjoint)
    return replace(config, solver="exact", solver_chosen=True)


@dataclass(frozen=True)
class LoadedRun:
    """A trained run: the model with its best weights, and the experiment it came from."""

    model: SequenceModel
    target: Functional
    t: Tensor
    validation_inputs: Tensor
    solver: Solver | None
    config: ExperimentConfig


def load_run(directory: str | Path, *, trust_code: bool = False, trusted: str | None = None) -> LoadedRun:
    """Reads a run directory, on the CPU.

    Args:
        directory: of the run.
        trust_code, trusted: whether code that the run names may be run, see `read_config`.

    Raises:
        ValueError: missing, damaged or not a run.
    """
    run = RunDirectory.open(Path(directory))
    config = replace(read_config(run, trust_code=trust_code, trusted=trusted), device="cpu", warm_start=None)
    weights = run.load_best(fingerprint(config.identity()))
    experiment = Experiment(config)
    _require_targets(run, experiment._targets)
    try:
        experiment.model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the weights in {run.path} do not fit its config: {str(error).splitlines()[0]}") from error
    data = experiment.data
    return LoadedRun(experiment.model, experiment.target, data.t, data.x_validation, experiment.solver, config)


def read_config(run: RunDirectory, *, trust_code: bool = False, trusted: str | None = None) -> ExperimentConfig:
    """The experiment of a run directory.

    Args:
        run: the directory.
        trust_code: whether its kernel may be code ('module:function' or 'file.py:function'): building the experiment runs it.
        trusted: a kernel that may be code without that.

    Raises:
        ValueError: its config is damaged, or not one of an experiment, or names code that is not trusted.
    """
    record, sealed = run.config_and_seal()
    try:
        unknown = sorted(record.keys() - {"experiment", "targets"})
        if unknown or "experiment" not in record:
            raise ValueError(f"unknown entry {unknown[0]!r}" if unknown else "no entry 'experiment'")
        config = ExperimentConfig.from_dict(record["experiment"], complete=not sealed)
    except ValueError as error:
        raise ValueError(f"the config in {run.path} is not that of an experiment ({error}): give the --out of a run") from error
    if kernels.names_code(config.kernel) and not trust_code and config.kernel != trusted:
        raise ValueError(
            f"the run in {run.path} names code as its kernel, {config.kernel}, which would be run: if you trust it, add "
            "--trust-code (in Python: trust_code=True)"
        )
    return config


def _some_of(targets: Tensor) -> list[float]:
    """A few values of the first sequence, over all of its time."""
    values = targets[0].flatten()
    return values[torch.linspace(0, len(values) - 1, min(_KEPT_TARGETS, len(values))).round().long()].tolist()


def _require_targets(run: RunDirectory, targets: list[float]) -> None:
    """Raises ValueError where a run's kernel or inputs give other targets by now than when it was trained."""
    kept = run.config().get("targets")
    if kept is None:  # an earlier version
        return
    try:
        largest = max(map(abs, kept))
        same = len(kept) == len(targets) and all(abs(a - b) <= _TARGETS_MAY_MOVE * largest for a, b in zip(kept, targets))
    except (TypeError, ValueError):
        raise ValueError(
            f"the config in {run.path} holds no numbers as its targets: put back the one that the run wrote"
        ) from None
    if not same:
        raise ValueError(
            f"kernel and inputs of the run in {run.path} give other targets than when it was trained: put the kernel's code back "
            "as it was, or start the run again"
        )


def make_target(config: ExperimentConfig) -> Functional:
    """The functional of the config's kernel and nonlinearity."""
    functional = ConvolutionalFunctional(kernels.load(config.kernel), config.interpolation)  # type: ignore[arg-type]
    return functional if config.nonlinearity == "none" else NonlinearFunctional(functional, config.nonlinearity)


def quadrature_error(target: Functional) -> float | None:
    """The relative error estimate of the target's quadrature, where it has one."""
    inner = target.functional if isinstance(target, NonlinearFunctional) else target
    return inner.quadrature_error if isinstance(inner, ConvolutionalFunctional) else None


@cache
def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numba", "numpy", "torchdiffeq")}


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device here: use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
