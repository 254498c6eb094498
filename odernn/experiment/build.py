"""An experiment: a config becomes a trained run in its directory, and goes on from there."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from targets import grids

from ..generalization import InputMoments, generalization_measure, rescale_readout
from ..initialization import initialize
from ..losses import relative_l2
from ..runs import RunDirectory
from ..seals import fingerprint
from ..solvers import DivergedSolve, Fused, Solver, choose_solver, deviation
from ..training import Data, Trainer
from ..version import __version__
from ..warm_start import widen
from .config import DTYPES, ExperimentConfig
from .load import kept_targets, load_run, require_targets
from .parts import (
    Trial,
    data_of,
    device_of,
    inputs_of,
    model_of,
    probe_times,
    solver_of,
    target_of,
    times_of,
    trial_of,
    with_solver,
)

# The settings that 'auto' sets.
_SOLVER_SETTINGS = ("solver", "substeps", "rtol", "atol", "adjoint")


class Experiment:
    """The parts that a config stands for, each built once and validated by building it.

    Args:
        config: what to build.
        warm: whether the weights begin at the config's warm start, where it has one; not needed where weights are loaded.
        trust_code: whether code that the run of the warm start names may be run, see `read_config`.

    Raises:
        ValueError: settings that do not fit together.

    Example:
        >>> from odernn import Experiment, ExperimentConfig
        >>> experiment = Experiment(ExperimentConfig(hidden_size=4, device="cpu"))
        >>> experiment.model.hidden_size, experiment.t.shape
        (4, torch.Size([101]))
    """

    def __init__(self, config: ExperimentConfig, *, warm: bool = True, trust_code: bool = False) -> None:
        self.config = config if config.warm_start is None else replace(config, warm_start=str(Path(config.warm_start).resolve()))
        self.device, self.dtype = device_of(config), DTYPES[config.dtype]
        self.target, own = None, None
        if config.data is None:
            self.target = target_of(config)
        else:
            self.config, own = data_of(self.config)
        self.model = model_of(config, self.target, own)
        if warm and config.initialization != "random":
            horizon = config.horizon if own is None else grids.span(own.t)
            step = config.horizon / (config.points - 1) if own is None else grids.mean_step(own.t)
            initialize(self.model, config.initialization, horizon, step=step, seed=config.seed)
        if warm and config.warm_start is not None:
            # Code that this config names itself has run already.
            widen(load_run(config.warm_start, trust_code=trust_code, trusted=config.code()).model, self.model)
        self._targets: list[float] | None = None
        self.data = self._generated() if own is None else own.to(self.device, self.dtype)
        if warm and config.rescale_readout:
            rescale_readout(self.model, self._moments())
        # Whence memory functions are drawn.
        self.t = times_of(config) if own is None else probe_times(own.t)
        self.solver = self._solver()
        if config.solver == "auto" and self.solver is not None:
            self.config = with_solver(self.config, self.solver)
        self._config_is_behind = False  # the one on disk, by the solver
        self.trainer = Trainer(
            self.model,
            self.data,
            config.training,
            solver=None if self.solver is None else self.solver.unchecked(),
            interpolation=config.interpolation,
        )
        self.trainer.before_validation = self._keep_to_tolerance
        # A run is resumed with the optimiser that it had.
        self.config = replace(self.config, training=self.trainer.config)

    def _generated(self) -> Data:
        """Inputs and the target's answers to them."""
        config, target = self.config, self.target
        assert target is not None
        t = times_of(config)
        x, x_validation = (inputs_of(config, self.model.input_size, validation=validation) for validation in (False, True))
        y, y_validation = target(x, t), target(x_validation, t)
        if not (y.any() and y_validation.any()):
            raise ValueError(f"kernel {config.kernel} gives targets that are all 0 on [0, {config.horizon:g}]: raise --horizon")
        self._targets = kept_targets(y_validation)
        return Data(*(tensor.to(self.device, self.dtype) for tensor in (t, x, y, x_validation, y_validation)))

    def __repr__(self) -> str:
        return f"Experiment({type(self.model).__name__}, target {self.target!r}, {self.solver}, {self.trainer!r})"

    def _moments(self) -> InputMoments:
        """Mean and covariance of the training inputs."""
        return InputMoments.measured(self.data.t, self.data.x, self.config.interpolation)

    def record(self) -> dict[str, Any]:
        """The content of config.json: the settings, and some targets, which tell whether the kernel's code has changed (of data
        the settings have a checksum)."""
        return {"experiment": self.config.to_dict()} | ({} if self._targets is None else {"targets": self._targets})

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
        if self._targets is not None:
            require_targets(run, self._targets)
        done, asked = self.trainer.epoch, self.config.training.epochs
        if asked < done:
            raise ValueError(f"the run in {run.path} has {done} epochs already, got {asked}: give at least {done} --epochs")
        then, now = state.get("environment", {}), self.environment()
        changed = [f"{name} ({then[name]} before, {now.get(name)} now)" for name in then if then[name] != now.get(name)]
        if changed:
            warnings.warn(f"{run.path} goes on with another {', '.join(changed)}: the last digits may differ", stacklevel=2)

    def environment(self) -> dict[str, Any]:
        """All that the last digits of a training depend on beside its settings."""
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
        """Results with the weights that the model has now, as JSON values."""
        trainer = self.trainer
        with torch.no_grad():
            held = self.data.validation
            response = trainer.respond(held)
            error = relative_l2(response.y, held.y, held.mask)
            margin, rate = self.model.stability_margin(), float(self.model.slowest_rate(trainer.mean_dt))
            regularised = trainer.config.regularizer == "tau"
            tau = {"tau": float(generalization_measure(self.model, self._moments()))} if regularised else {}
        return {
            "validation_relative_l2": float(error),
            "stability_margin": float(margin),
            **tau,
            "slowest_rate": rate,
            "evaluations_training": trainer.evaluations,
            "evaluations_per_solve": response.solution.evaluations,
            "seconds": trainer.seconds,
            "epochs": trainer.epoch,
            "stopped": trainer.stopped,
            "best_epoch": trainer.best_epoch,
            "solver": str(self.solver or "none"),
            "solver_deviation": self.solver_deviation(),
            "device": str(self.device),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "quadrature_relative_error": None if self.target is None else self.target.quadrature_error,
            "versions": {"odernn": __version__} | {name: version(name) for name in ("torch", "torchdiffeq", "numpy", "scipy")},
        }

    def _save(self, trainer: Trainer, improved: bool, run: RunDirectory) -> None:
        identity = fingerprint(self.config.identity())
        # First what the other files are made from.
        state = {**trainer.state_dict(), "experiment": self.config.to_dict(), "environment": self.environment()}
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
        if self._config_is_behind:
            run.write_config(self.record())
            self._config_is_behind = False

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
            found = deviation(self.solver, *trial)
            if found > tolerance:
                solver = choose_solver(*trial, tolerance)
                tqdm.write(
                    f"after epoch {self.trainer.epoch + 1} {self.solver} is {found:.1e} from a tight solve: from here on {solver}"
                )
                self._take(with_solver(self.config, solver))
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
        while self.solver is not None and (smaller := self.solver.finer(self.dtype)) is not None:
            coarse, config = error, self.config
            self._take(with_solver(self.config, smaller))
            error = self.trainer.validation_error()
            if abs(error - coarse) <= self.config.solver_tolerance:
                self._take(config)
                break
        if self.solver != before:
            tqdm.write(f"the best weights are judged with {self.solver} (trained with {before})")

    def _take(self, config: ExperimentConfig) -> None:
        """Goes on with the solver of this config."""
        self._config_is_behind = True
        self.config = config
        self.solver = self._solver()
        self.trainer.solver = None if self.solver is None else self.solver.unchecked()

    def _solver(self) -> Solver | None:
        return solver_of(self.config, self.model, self.data.t, lambda: self.data.x)

    def _trial(self) -> Trial:
        """A few training sequences, on which solvers are compared."""
        return trial_of(self.config, self.model, self.data.t, self.data.x)


@cache
def _packages() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numba", "numpy", "torchdiffeq")}
