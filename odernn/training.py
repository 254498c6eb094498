"""Training of a model on samples of a target: the loop, its optimisers and its state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from targets import arguments, grids

from .losses import LOSSES, relative_l2, stability_penalty
from .models import ContinuousModel, Response, SequenceModel
from .paths import Interpolation
from .settings import check_types
from .solvers import DivergedSolve, Solver
from .solvers.base import unchecked

OPTIMIZERS = ("lbfgs", "adam", "adamw")
SCHEDULES = ("none", "plateau", "cosine")

# When none is given: L-BFGS scales its own step, its line search starts from 1; [IA] Fig 2 trains by Adam at 0.005.
_DEFAULT_LR = {"lbfgs": 1.0, "adam": 5e-3, "adamw": 5e-3}
# Generators take 64 bits; what is derived from a seed here stays far inside.
MAX_SEED = 2**31
_DEFAULT_BATCH_SIZE = 128  # [IA] Fig 2
_LBFGS_HISTORY = 50
# What the objective is multiplied by for L-BFGS: PyTorch's drops a curvature pair whose product is below 1e-10, which with mean
# square errors of 1e-6 is all of them.
_LBFGS_SCALE = 1e8
# An epoch of L-BFGS that lowers the loss by no more than this part has stalled.
_STALLED = 1e-6
# What a diverged trial point of the line search is told to cost, relative to the loss at the start of the search: finite, because
# its cubic interpolation cannot take inf, and not so large that the interpolated step vanishes.
_DIVERGED_COST = 10.0


@dataclass(frozen=True)
class Data:
    """Inputs x (batch, time, input) and targets y (batch, time, output) at times t (time,), for training and validation.

    Raises:
        ValueError: not two times or more, no sequences, or tensors that differ in shape, precision or device or are not finite.
    """

    t: Tensor
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor

    def __post_init__(self) -> None:
        grids.times(self.t, least=2)
        for end in ("", "_validation"):
            x, y = getattr(self, f"x{end}"), getattr(self, f"y{end}")
            for name, tensor, like in ((f"x{end}", x, self.x), (f"y{end}", y, self.y)):
                if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                    came = f"a {tensor.dtype} tensor" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
                    raise ValueError(f"{name} is {came}, expected a floating-point tensor (batch, time, channel); convert it")
                arguments.real_tensor(name, tensor)
                if tensor.ndim != 3 or not tensor.numel() or tensor.shape[-1] != like.shape[-1]:
                    raise ValueError(
                        f"{name} has shape {tuple(tensor.shape)}, expected (batch, time, channel), none 0, and for "
                        "validation the channels of training; give as many"
                    )
                if (tensor.dtype, tensor.device) != (self.x.dtype, self.x.device):
                    raise ValueError(
                        f"{name} is {tensor.dtype} on {tensor.device}, x {self.x.dtype} on {self.x.device}, expected the same; "
                        "convert one with .to(...)"
                    )
            if x.shape[:2] != y.shape[:2] or x.shape[1] != self.t.numel():
                raise ValueError(
                    f"x, y and t disagree: x{end} is {tuple(x.shape)}, y{end} {tuple(y.shape)}, t has {self.t.numel()} times; "
                    "expected (batch, time, channel) with the same batch and time; match them"
                )


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Args:
        optimizer: 'lbfgs' (full batch, strong Wolfe line search), 'adam' or 'adamw' (mini-batches).
        epochs: passes over the data; for L-BFGS rounds of `iterations` steps.
        iterations: L-BFGS steps per epoch.
        batch_size: sequences per step of Adam; None for 128. L-BFGS takes all.
        lr: learning rate; None for 1 (L-BFGS) or 0.005 (Adam).
        schedule: of the learning rate: 'none', 'plateau' (halved when the validation error stalls) or 'cosine' (to 0).
        gradient_clip: largest gradient norm of Adam; None for no limit.
        patience: epochs without a better validation error after which training stops; 0 for never.
        loss: one of `odernn.losses.LOSSES`.
        weight_decay: adds weight_decay (|U|^2 + |c|^2) to the loss; for adamw its own decoupled decay of every weight.
        margin, margin_weight: adds margin_weight max(0, margin - stability margin)^2 to the loss.
        seed: of the order of the mini-batches.
    """

    optimizer: str = "lbfgs"
    epochs: int = 40
    iterations: int = 10
    batch_size: int | None = None
    lr: float | None = None
    schedule: str = "none"
    gradient_clip: float | None = None
    patience: int = 0
    loss: str = "mse"
    weight_decay: float = 0.0
    margin: float = 0.0
    margin_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", tuple(LOSSES))):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, least in (("epochs", 0), ("iterations", 1), ("batch_size", 1), ("patience", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name in ("lr", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        for name in ("weight_decay", "margin", "margin_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be non-negative and finite, got {getattr(self, name)}")
        if not 0 <= self.seed < MAX_SEED:
            raise ValueError(f"seed must lie between 0 and {MAX_SEED - 1}, got {self.seed}")
        if self.margin and not self.margin_weight:
            raise ValueError("margin has no effect without margin_weight: give both, or leave margin out")
        if self.optimizer == "lbfgs":
            for name in ("batch_size", "gradient_clip"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for adam, adamw (lbfgs needs all data and the true gradient): leave it out")


class Trainer:
    """Trains one model; its whole state can be saved between epochs and restored bit for bit.

    Args:
        model: its weights are trained in place.
        data: samples of the target, on the model's device and in its dtype.
        config: how.
        solver: None for the automatic choice; discrete models take none.
        interpolation: of x between its samples.
    """

    def __init__(
        self,
        model: SequenceModel,
        data: Data,
        config: TrainingConfig,
        *,
        solver: Solver | None = None,
        interpolation: Interpolation = "linear",
    ) -> None:
        self.model, self.data, self.config = model, data, config
        self.solver, self.interpolation = solver, interpolation
        self.optimizer = self._make_optimizer()
        self.scheduler = self._make_scheduler()
        self.loss = LOSSES[config.loss]
        self.history: list[dict[str, float]] = []
        self.best_error = math.inf
        self.best_epoch = 0
        self.keep_weights()
        self.evaluations = 0
        # Called between the steps of an epoch and its validation: the place to take a finer solver.
        self.before_validation: Callable[[], None] | None = None
        self._penalized = [tensor for name, tensor in model.named_parameters() if name == "c" or name.endswith(".U")]

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def step(self) -> float:
        """Mean time between samples."""
        t = self.data.t
        return float(t[-1] - t[0]) / (t.numel() - 1)

    @property
    def seconds(self) -> float:
        return self.history[-1]["seconds"] if self.history else 0.0

    @property
    def stalled(self) -> bool:
        """Whether early stopping says to stop."""
        return 0 < self.config.patience <= self.epoch - self.best_epoch

    def run(self, on_epoch: Callable[[Trainer, bool], None] | None = None, progress: bool = True) -> None:
        """Trains up to `config.epochs`, or until early stopping.

        Args:
            on_epoch: called after each epoch with this trainer and whether its validation error is the best so far.
            progress: shows a progress bar on a terminal.

        Raises:
            DivergedSolve: the solve, the loss or a gradient stopped being finite. The trainer's state is then that of no epoch;
                what `on_epoch` last saved is good.

        Warns:
            InaccurateSolve: the solver's steps do not resolve the model that came out.
        """
        bar = tqdm(
            total=self.config.epochs, initial=self.epoch, unit="epoch", disable=None if progress else True, dynamic_ncols=True
        )
        with bar:
            while self.epoch < self.config.epochs and not self.stalled:
                row = self._run_epoch()
                improved = row["validation_relative_l2"] < self.best_error
                if improved:
                    self.best_error, self.best_epoch = row["validation_relative_l2"], self.epoch
                    self.keep_weights()
                if on_epoch is not None:
                    on_epoch(self, improved)
                bar.update()
                loss, margin = row["loss"], row["stability_margin"]
                bar.set_postfix_str(f"loss {loss:.2e}, validation {row['validation_relative_l2']:.2e}, margin {margin:.2g}")
        # Trial points of a line search may be as wild as they like: what counts is where the training ends.
        self.validation_error(check=True)

    def keep_weights(self) -> None:
        """Takes the weights of this moment as the best."""
        self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def validation_error(self, *, check: bool = False) -> float:
        """Relative L2 error on the validation set; `check` as in `respond`."""
        with torch.no_grad():
            response = self.respond(self.data.x_validation, check=check)
            return float(relative_l2(response.y, self.data.y_validation))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the coming epochs depend on, and the best weights so far: tensors and JSON values."""
        return {
            "model": self.model.state_dict(),
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
        _require_same_settings(state["optimizer"], fresh["optimizer"])
        if (state["scheduler"] is None) != (self.scheduler is None):
            raise ValueError(f"schedule is {self.config.schedule!r}, that of the saved state is another")
        _require_history(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if isinstance(self.scheduler, LambdaLR):  # the restored rate is that of the old number of epochs
            for group, base, factor in zip(self.optimizer.param_groups, self.scheduler.base_lrs, self.scheduler.lr_lambdas):
                group["lr"] = base * factor(self.scheduler.last_epoch)
        self.history = [dict(row) for row in state["history"]]
        self.best_error, self.best_epoch = state["best_error"], state["best_epoch"]
        self.best_weights = {name: value.to(fresh["best"][name]) for name, value in state["best"].items()}
        self.evaluations = state["evaluations"]

    def _run_epoch(self) -> dict[str, float]:
        started = time.perf_counter()
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
            margin, rate = float(self.model.stability_margin()), float(self.model.slowest_rate(self.step))
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

    def _minibatch_epoch(self) -> float:
        """One pass in random order; the mean loss of its steps."""
        losses = []
        for index in self._batches():
            self.optimizer.zero_grad()
            loss = self._objective(self.data.x[index], self.data.y[index])
            self._backward(loss)
            if self.config.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

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
                loss = self._objective(self.data.x, self.data.y)
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
            loss = float(self._objective(self.data.x, self.data.y))
        if started_at is not None and not loss < (1 - _STALLED) * started_at:
            # Its memory of the curvature leads nowhere: the next epoch starts from the gradient again.
            self.optimizer.state.clear()
        return loss

    def _objective(self, x: Tensor, y: Tensor) -> Tensor:
        response = self.respond(x)
        self.evaluations += response.solution.evaluations
        loss = self.loss(response.y, y)
        if self.config.weight_decay and self.config.optimizer != "adamw":
            loss = loss + self.config.weight_decay * sum(tensor.square().sum() for tensor in self._penalized)
        if self.config.margin_weight:
            loss = loss + self.config.margin_weight * stability_penalty(self.model, self.config.margin)
        if not torch.isfinite(loss):
            raise DivergedSolve("the loss is not finite: lower the learning rate or use a stable parameterization")
        return loss

    def respond(self, x: Tensor, *, check: bool = False) -> Response:
        """The model's answer to inputs at the data's times; `check` has the solver say where its steps do not resolve it."""
        if isinstance(self.model, ContinuousModel):
            solver = self.solver if check or self.solver is None else unchecked(self.solver)
            return self.model.respond(x, self.data.t, solver=solver, interpolation=self.interpolation)
        return self.model.respond(x, self.data.t)  # type: ignore[operator]

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

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, list(self.model.parameters())
        lr = _DEFAULT_LR[config.optimizer] if config.lr is None else config.lr
        if config.optimizer == "lbfgs":
            # Tolerances far below the losses met here (1e-6 and less): epochs and patience decide when to stop.
            return torch.optim.LBFGS(
                parameters,
                lr=lr,
                max_iter=config.iterations,
                history_size=_LBFGS_HISTORY,
                tolerance_grad=1e-14,
                tolerance_change=1e-16,
                line_search_fn="strong_wolfe",
            )
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=lr)
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=config.weight_decay)

    def _make_scheduler(self) -> LRScheduler | ReduceLROnPlateau | None:
        if self.config.schedule == "plateau":
            return ReduceLROnPlateau(self.optimizer, factor=0.5)
        if self.config.schedule == "cosine":
            # A function of the epoch alone, so that a run resumed with more epochs follows the longer cosine.
            return LambdaLR(self.optimizer, lambda epoch: (1 + math.cos(math.pi * epoch / max(self.config.epochs, 1))) / 2)
        return None


def _require_same_tensors(name: str, given: Any, own: dict[str, Tensor]) -> None:
    if not isinstance(given, dict) or given.keys() != own.keys():
        raise ValueError(f"{name} holds other weights than {', '.join(own)}")
    for key, tensor in own.items():
        value = given[key]
        if not isinstance(value, Tensor) or value.shape != tensor.shape or value.dtype != tensor.dtype:
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} has {key} of {found}, expected {tensor.dtype} {tuple(tensor.shape)}")


def _require_same_settings(given: Any, own: dict[str, Any]) -> None:
    """The settings of an optimiser are the config's; only its learning rate moves, by the schedule."""
    if not isinstance(given, dict) or given.keys() != own.keys() or len(given["param_groups"]) != len(own["param_groups"]):
        raise ValueError("optimizer is not the state of one")
    for group, expected in zip(given["param_groups"], own["param_groups"]):
        # Versions of PyTorch add settings: those that both know must agree, and another optimiser shares none.
        shared = (group.keys() & expected.keys()) - {"params", "lr", "initial_lr"}
        if not shared or any(group[name] != expected[name] for name in shared):
            raise ValueError("optimizer is another, or has other settings")


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
