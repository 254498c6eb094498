"""Optimisers and the schedules of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ..models import SequenceModel
from ..solvers import Solver, automatic
from .config import TrainingConfig
from .data import Data
from .levenberg_marquardt import LevenbergMarquardt

# When none is given: L-BFGS scales its own step, its line search starts from 1; [IA] Fig 2 trains by Adam at 0.005.
_DEFAULT_LR = {"lbfgs": 1.0, "adam": 5e-3, "adamw": 5e-3}
_LBFGS_HISTORY = 50
# 'auto' takes 'lm' up to so many entries of its Jacobian: some 600 weights on 16 sequences of 800 samples.
_QUICK_ENTRIES = 2**23
# Steps of an epoch.
DEFAULT_ITERATIONS = {"lbfgs": 10, "lm": 1}


def resolve(config: TrainingConfig, model: SequenceModel, data: Data, solver: Solver | None) -> TrainingConfig:
    """The config with the optimiser that 'auto' stands for: 'lm' where it fits, else 'lbfgs'.

    It fits on the CPU in double precision, where no learning rate and no regulariser is asked for, where solves are compiled and
    the Jacobian has at most 2^23 entries: a step takes a solve for each of its columns.

    Raises:
        ValueError: 'lm' in another precision.
    """
    if config.optimizer == "lm" and model.c.dtype != torch.float64:
        raise ValueError(f"optimizer 'lm' takes differences of states in float64, got {model.c.dtype}: convert, or take 'lbfgs'")
    if config.optimizer != "auto":
        return config
    columns = sum(weight.numel() for weight in model.parameters()) - model.c.numel()
    small = data.y.numel() * columns <= _QUICK_ENTRIES
    lean = model.is_map or (solver or automatic(model.field())).lean
    free = not config.rated and config.regularizer == "none"
    fits = model.c.dtype == torch.float64 and free and small and lean and model.c.device.type == "cpu"
    return replace(config, optimizer="lm" if fits else "lbfgs")


def make_optimizer(config: TrainingConfig, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimiser that a config names, of these weights."""
    parameters = list(parameters)
    if config.optimizer == "lm":
        return LevenbergMarquardt(parameters)
    lr = _DEFAULT_LR[config.optimizer] if config.lr is None else config.lr
    if config.optimizer == "lbfgs":
        # Tolerances far below the losses met here (1e-6 and less): epochs and patience decide when to stop.
        return torch.optim.LBFGS(
            parameters,
            lr=lr,
            max_iter=config.iterations or DEFAULT_ITERATIONS["lbfgs"],
            history_size=_LBFGS_HISTORY,
            tolerance_grad=1e-14,
            tolerance_change=1e-16,
            line_search_fn="strong_wolfe",
        )
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=config.weight_decay)


def make_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
    """The schedule that a config names; None for a learning rate that stays."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5)
    if config.schedule == "cosine":
        # A function of the epoch alone, so that a run resumed with more epochs follows the longer cosine.
        return LambdaLR(optimizer, lambda epoch: (1 + math.cos(math.pi * epoch / max(config.epochs, 1))) / 2)
    return None


def restore_rates(optimizer: torch.optim.Optimizer, schedule: LRScheduler | ReduceLROnPlateau | None) -> None:
    """The learning rates at the epoch of a restored schedule: a restored optimiser has those of the old number of epochs."""
    if isinstance(schedule, LambdaLR):
        for group, base, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas):
            group["lr"] = base * factor(schedule.last_epoch)


def require_same_settings(given: Any, own: dict[str, Any]) -> None:
    """Raises ValueError unless `given` is the state of an optimiser with the settings of `own`.

    They are the config's; only the learning rate moves, by the schedule.
    """
    if not isinstance(given, dict) or given.keys() != own.keys() or len(given["param_groups"]) != len(own["param_groups"]):
        raise ValueError("optimizer is not the state of one")
    for group, expected in zip(given["param_groups"], own["param_groups"]):
        # Versions of PyTorch add settings: those that both know must agree, and another optimiser shares none.
        shared = (group.keys() & expected.keys()) - {"params", "lr", "initial_lr"}
        if not shared or any(group[name] != expected[name] for name in shared):
            raise ValueError("optimizer is another, or has other settings")
