"""The training loop, and its state between epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from targets import grids

from ..losses import LOSSES, relative_l2, stability_penalty
from ..models import Response, SequenceModel
from ..paths import Interpolation, interpolate
from ..progress import Progress
from ..runs import RunDirectory
from ..solvers import Auto, DivergedSolve, Solver, deviation, named
from ..solvers.names import TRIAL_SEQUENCES
from . import saved
from .chunks import chunks, relative_l2_in_chunks
from .config import TrainingConfig
from .data import Data, Samples
from .least_squares import LeastSquares
from .levenberg_marquardt import STOPS, LevenbergMarquardt
from .optimizers import DEFAULT_ITERATIONS, make_optimizer, make_schedule, require_same_settings, resolve, restore_rates
from .penalties import Penalties

_DEFAULT_BATCH_SIZE = 128  # [IA] Fig 2
# Factor of the objective for L-BFGS: PyTorch's drops a curvature pair whose product is below 1e-10, which with mean
# square errors of 1e-6 is all of them.
_LBFGS_SCALE = 1e8
# An epoch of L-BFGS that lowers the loss by no more than this part has stalled.
_STALLED = 1e-6
# Loss reported for a diverged trial point of the line search, relative to that at the start of the epoch, and from which loss on
# a trial counts as diverged: finite, because the search's cubic interpolation cannot take inf (nor 1e160), and not so large that
# the interpolated step vanishes.
_DIVERGED_COST = 10.0


class Trainer:
    """Trains one model; its whole state can be saved between epochs and restored bit for bit.

    Args:
        model: its weights are trained in place; with an ensemble the mean of all members' losses, and by 'lm' each by itself.
        data: samples of the target, on the model's device and in its dtype.
        config: optimisation settings; `Trainer.config` names the optimiser that 'auto' came to.
        solver: a `Solver` or a name of `odernn.solvers.SOLVERS`; 'auto' chooses on a few training sequences, and again before an
            epoch for which the choice no longer holds. None for `odernn.solvers.automatic`; discrete models take none.
        interpolation: of x between its samples.
    """

    def __init__(
        self,
        model: SequenceModel,
        data: Data,
        config: TrainingConfig,
        *,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
    ) -> None:
        self.model, self.data, self.interpolation = model, data, interpolation
        solver = named(solver)
        self._auto = solver if isinstance(solver, Auto) and not model.is_map else None
        self.solver = None if isinstance(solver, Auto) else solver
        self._choose_solver()
        self.config = resolve(config, model, data, self.solver)
        config = self.config
        self.optimizer = make_optimizer(config, model.parameters())
        self.scheduler = make_schedule(config, self.optimizer)
        self.loss = LOSSES[config.loss]
        self.history: list[dict[str, float]] = []
        self.best_error = math.inf
        self.best_epoch = 0
        self.keep_weights()
        self.evaluations = 0
        self._diverged = False
        self._last_weights: dict[str, Tensor] | None = None
        self._saved_to: Path | None = None
        # Called between the steps of an epoch and its validation: the place to take a finer solver.
        self.before_validation: Callable[[], None] | None = None
        self._penalties = Penalties(model, data, config, interpolation)

    def __repr__(self) -> str:
        done = f"epoch {self.epoch} of {self.config.epochs}" + (f", stopped: {self.stopped}" if self.stopped else "")
        best = (
            f", best validation error {self.best_error:.4g} at epoch {self.best_epoch}" if math.isfinite(self.best_error) else ""
        )
        return f"Trainer({type(self.model).__name__}, {self.config.optimizer}, {done}{best})"

    @property
    def chosen_by(self) -> Auto | None:
        """What chooses the solver, where it was asked for 'auto'."""
        return self._auto

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def mean_dt(self) -> float:
        """Mean time between samples."""
        return grids.mean_step(self.data.t)

    @property
    def seconds(self) -> float:
        return self.history[-1]["seconds"] if self.history else 0.0

    @property
    def stalled(self) -> bool:
        """Whether early stopping says to stop."""
        return 0 < self.config.patience <= self.epoch - self.best_epoch

    @property
    def stopped(self) -> str:
        """Why training ended: 'optimum', 'stalled' (early stopping, or steps of 'lm' that lead nowhere), 'diverged' or 'out of
        steps', of an ensemble all that hold; '' while it goes on."""
        if self._diverged:
            return "diverged"
        members = self.optimizer.stops if isinstance(self.optimizer, LevenbergMarquardt) else ("",)
        if self.stalled:
            members = tuple(reason or "stalled" for reason in members)
        if self.epoch >= self.config.epochs:
            members = tuple(reason or "out of steps" for reason in members)
        return ", ".join(reason for reason in (*STOPS, "out of steps") if reason in members) if all(members) else ""

    def run(self, on_epoch: Callable[[Trainer, bool], None] | None = None, progress: bool = True) -> None:
        """Trains up to `config.epochs`, or until `stopped` says why not.

        Args:
            on_epoch: called after each epoch with this trainer and whether its validation error is the best so far.
            progress: shows a progress bar on a terminal.

        Raises:
            DivergedSolve: the solve, the loss or a gradient stopped being finite. The trainer's state is then that of no epoch;
                what `on_epoch` last saved is good.

        Warns:
            InaccurateSolve: the solver's steps do not resolve the model that came out.
        """
        if self._last_weights is not None and not self.stopped:
            self.model.load_state_dict(self._last_weights)
            self._last_weights = None
        with Progress("training", self.config.epochs, "epochs", shown=progress, done=self.epoch) as bar:
            while not self.stopped:
                try:
                    row = self._run_epoch()
                except DivergedSolve:
                    self._diverged = True
                    raise
                improved = row["validation_relative_l2"] < self.best_error
                if improved:
                    self.best_error, self.best_epoch = row["validation_relative_l2"], self.epoch
                    self.keep_weights()
                if on_epoch is not None:
                    on_epoch(self, improved)
                loss, margin = row["loss"], row["stability_margin"]
                bar.advance(remark=f"loss {loss:.2e}, validation {row['validation_relative_l2']:.2e}, margin {margin:.2g}")
        # Trial points of a line search may be as wild as they like: what counts is where the training ends.
        self.validation_error(check=True)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Leaves a run directory that `load_run` and `Trainer.resume` read: model, settings, weights, history, not the data.

        Args:
            path: of the directory; this trainer may save there again.
            overwrite: whether a run of others that it holds is replaced.

        Raises:
            ValueError: `path` is taken or cannot be written.
        """
        place = Path(path).resolve()
        mine = place == self._saved_to and place.exists()
        run = RunDirectory.open(place) if mine else RunDirectory.create(Path(path), saved.record(self), overwrite=overwrite)
        with run.writing():
            saved.write(self, run)
            saved.write_summary(self, run)
        self._saved_to = place

    @classmethod
    def resume(cls, path: str | Path, data: Data, *, model: SequenceModel | None = None, epochs: int | None = None) -> Trainer:
        """The trainer that `save` or `train(..., out=path)` left in a run directory; `run` goes on where it stopped.

        Args:
            path: of the directory.
            data: that it was trained on, which are not saved.
            model: takes the weights; needed where the model's code is the user's own. Otherwise one is made on the data's device.
            epochs: as many in all; None for as many as before.

        Raises:
            ValueError: no such run, or other data than it was trained on.
        """
        run = saved.open_run(path)
        entry, config, solver = saved.resumed_settings(run, epochs)
        trainer = cls(
            model or saved.made(run, entry).to(data.x.device),
            data,
            config,
            solver=solver,
            interpolation=entry["interpolation"],
        )
        saved.restore(trainer, run)
        trainer._saved_to = Path(path).resolve()
        return trainer

    def finish(self) -> None:
        """Leaves the model with its best weights; a checkpoint, and a later `run`, go on from the last ones."""
        if self._last_weights is None:
            self._last_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.best_weights)

    def keep_weights(self) -> None:
        """Takes the weights of this moment as the best."""
        self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def validation_error(self, *, check: bool = False) -> float:
        """Relative L2 error on the validation set; `check` as in `respond`."""
        with torch.no_grad():
            held = self.data.validation
            if self.config.chunk is None:
                return float(relative_l2(self.respond(held, check=check).y, held.y, held.mask).mean())
            return float(relative_l2_in_chunks(partial(self.respond, check=check), held, self.config.chunk).mean())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming epochs depend on, and the best weights so far: tensors and JSON values."""
        return {
            "model": self._last_weights or self.model.state_dict(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "history": self.history,
            "best_error": self.best_error,
            "best_epoch": self.best_epoch,
            "evaluations": self.evaluations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: the state of another model, optimiser or schedule, or none at all; names what does not fit.
        """
        fresh = self.state_dict()
        missing = sorted(fresh.keys() - state.keys())
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        for name in ("model", "best"):
            _require_same_tensors(name, state[name], fresh[name])
        require_same_settings(state["optimizer"], fresh["optimizer"])
        if (state["scheduler"] is None) != (self.scheduler is None):
            raise ValueError(f"schedule is {self.config.schedule!r}, that of the saved state is another")
        _require_history(state)
        self.model.load_state_dict(state["model"])
        self._last_weights = None
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        restore_rates(self.optimizer, self.scheduler)
        self.history = [dict(row) for row in state["history"]]
        self.best_error, self.best_epoch = state["best_error"], state["best_epoch"]
        self.best_weights = {name: value.to(fresh["best"][name]) for name, value in state["best"].items()}
        self.evaluations = state["evaluations"]

    def _choose_solver(self) -> None:
        """What 'auto' stands for at the weights of this moment."""
        if self._auto is None:
            return
        with torch.no_grad():
            few = self.data.training[:TRIAL_SEQUENCES]
            field, path = self.model.field(), interpolate(few.t, few.x, self.interpolation)
            h0 = self.model.rest_state().unsqueeze(-2).expand(*self.model.ensemble, few.x.shape[0], field.size)
            if self.solver is None or deviation(self.solver, field, path, path.times, h0) > self._auto.tolerance:
                self.solver = self._auto.chosen(field, path, path.times, h0)

    def _run_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
        self._choose_solver()
        if isinstance(self.optimizer, LevenbergMarquardt):
            loss = self._least_squares_epoch(self.optimizer)
        else:
            loss = self._lbfgs_epoch() if isinstance(self.optimizer, torch.optim.LBFGS) else self._minibatch_epoch()
        if self.before_validation is not None:
            self.before_validation()
        error = self.validation_error()
        lr = self.optimizer.param_groups[0]["lr"]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(error)
        elif self.scheduler is not None:
            self.scheduler.step()
        with torch.no_grad():
            margin, rate = (float(x.amin()) for x in (self.model.stability_margin(), self.model.slowest_rate(self.mean_dt)))
        row = {
            "epoch": self.epoch + 1,
            "loss": loss,
            "validation_relative_l2": error,
            "stability_margin": margin,
            "slowest_rate": rate,
            "learning_rate": lr,
            "evaluations": self.evaluations,
            "seconds": self.seconds + time.perf_counter() - started,
        }
        self.history.append(row)
        return row

    def _least_squares_epoch(self, optimizer: LevenbergMarquardt) -> float:
        """`iterations` steps of Levenberg-Marquardt; the loss at its end."""
        weight, margin = self.config.margin_weight, self.config.margin
        problem = LeastSquares(
            self.model,
            self.data,
            self.loss,
            solver=self.solver,
            interpolation=self.interpolation,
            weight_decay=self.config.weight_decay,
            penalty=(lambda: weight * stability_penalty(self.model, margin)) if weight else None,
        )
        point = optimizer.begin(problem)
        for _ in range(self.config.iterations or DEFAULT_ITERATIONS["lm"]):
            if not all(optimizer.stops):
                point = optimizer.advance(problem, point)
        self.evaluations += problem.evaluations
        return float(point.cost.mean())

    def _minibatch_epoch(self) -> float:
        """One pass in random order; the mean loss of its steps."""
        losses = []
        for index in self._batches():
            for loss in self._losses(self.data.training[index]):
                self.optimizer.zero_grad()
                self._backward(loss)
                if self.config.gradient_clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
                self.optimizer.step()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def _losses(self, samples: Samples) -> Iterator[Tensor]:
        """The objective of a mini-batch; in chunks of time one after the other, each at the weights that are then."""
        if self.config.chunk is None:
            yield self._objective(samples)
            return
        h0 = None
        for chunk in chunks(samples, self.config.chunk, self.config.loss):
            response = self.respond(chunk.samples, h0)
            h0 = response.solution.h[..., -1, :].detach()
            if not chunk.empty:
                yield self._regularised(chunk.loss(response.y), response)

    def _batches(self) -> Iterator[Tensor]:
        # The order depends on seed and epoch alone, so that a resumed run needs no random state.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.data.x.shape[0], generator=generator)
        yield from order.to(self.data.x.device).split(self.config.batch_size or _DEFAULT_BATCH_SIZE)

    def _lbfgs_epoch(self) -> float:
        """`iterations` steps of L-BFGS; the loss at its end."""
        started_at: float | None = None

        def closure() -> Tensor:
            nonlocal started_at
            self.optimizer.zero_grad()
            try:
                loss = self._objective(self.data.training)
                if started_at is not None and not loss < _DIVERGED_COST * started_at:
                    raise DivergedSolve("the loss of a trial point is far above that of the start")
                self._backward(_LBFGS_SCALE * loss)
            except DivergedSolve:
                if started_at is None:
                    raise
                # A trial point of the line search, which then shortens its step.
                self.optimizer.zero_grad(set_to_none=False)
                for parameter in self.model.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                return self.data.x.new_tensor(_LBFGS_SCALE * _DIVERGED_COST * started_at)
            if started_at is None:
                started_at = loss.item()
            return _LBFGS_SCALE * loss

        self.optimizer.step(closure)  # type: ignore[arg-type]
        with torch.no_grad():
            loss = float(self._objective(self.data.training))
        if started_at is not None and not loss < (1 - _STALLED) * started_at:
            # Its memory of the curvature leads nowhere: the next epoch starts from the gradient again.
            self.optimizer.state.clear()
        return loss

    def _objective(self, samples: Samples) -> Tensor:
        response = self.respond(samples)
        return self._regularised(self.loss(response.y, samples.y, samples.mask), response)

    def _regularised(self, loss: Tensor, response: Response) -> Tensor:
        self.evaluations += response.solution.evaluations or 0
        loss = self._penalties.added_to(loss).mean()
        if not torch.isfinite(loss):
            raise DivergedSolve("the loss is not finite: lower the learning rate or use a stable parameterization")
        return loss

    def respond(self, samples: Samples, h0: Tensor | None = None, *, check: bool = False) -> Response:
        """The model's answer to the inputs at their times, from h0 or from rest; `check` has the solver say where its steps do
        not resolve it."""
        solver = self.solver if check or self.solver is None else self.solver.unchecked()
        return self.model.respond(samples.x, samples.t, h0, solver=solver, interpolation=self.interpolation)

    def _backward(self, loss: Tensor) -> None:
        try:
            loss.backward()
        except AssertionError as error:  # torchdiffeq's adjoint solve asserts when it cannot go on
            raise DivergedSolve(
                f"the adjoint solve diverged ({str(error).split(':')[0]}): use --no-adjoint, or a stable parameterization"
            ) from error
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                remedy = "lower the learning rate, use --no-adjoint or a stable parameterization"
                raise DivergedSolve(f"the gradient of {name} is not finite: {remedy}")


def _require_same_tensors(name: str, given: Any, own: dict[str, Tensor]) -> None:
    if not isinstance(given, dict) or given.keys() != own.keys():
        raise ValueError(f"{name} holds other weights than {', '.join(own)}")
    for key, tensor in own.items():
        value = given[key]
        if not isinstance(value, Tensor) or value.shape != tensor.shape or value.dtype != tensor.dtype:
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} has {key} of {found}, expected {tensor.dtype} {tuple(tensor.shape)}")


def _require_history(state: dict[str, Any]) -> None:
    history, numbers = state["history"], (int, float)
    sound = isinstance(history, list) and all(
        isinstance(row, dict) and row.get("epoch") == epoch and all(isinstance(value, numbers) for value in row.values())
        for epoch, row in enumerate(history, 1)
    )
    if not sound:
        raise ValueError("history is not that of a training")
    if not isinstance(state["best_error"], numbers) or not 0 <= state["best_epoch"] <= len(history):
        raise ValueError("best_error and best_epoch are not those of its history")
