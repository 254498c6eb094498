"""A run directory becomes a model again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from targets import Functional

from ..models import SequenceModel
from ..runs import RunDirectory
from ..seals import fingerprint
from ..solvers import Solver
from .config import DTYPES, ExperimentConfig
from .parts import inputs_of, model_of, solver_of, target_of, times_of

# Targets that are kept with a run: so many values, and how far they may move (relative to the largest) on another machine.
_KEPT_TARGETS, _TARGETS_MAY_MOVE = 16, 1e-6


@dataclass(frozen=True)
class LoadedRun:
    """A trained run: the model with its best weights, and what it was trained on.

    Args:
        model: on the CPU.
        target: H.
        t: (points,).
        validation_inputs: (validation_size, points, input).
        solver: that of the best weights; None for a discrete model.
        config: of the experiment.
    """

    model: SequenceModel
    target: Functional
    t: Tensor
    validation_inputs: Tensor
    solver: Solver | None
    config: ExperimentConfig


def load_run(directory: str | Path, *, trust_code: bool = False, trusted: Sequence[str] = ()) -> LoadedRun:
    """The model of a run directory, on the CPU; neither training data nor an optimiser is made.

    Args:
        directory: of the run.
        trust_code, trusted: whether code that the run names may be run, see `read_config`.

    Raises:
        ValueError: missing, damaged or not a run, or one whose kernel's code has changed.
    """
    run = RunDirectory.open(Path(directory))
    config = replace(read_config(run, trust_code=trust_code, trusted=trusted), device="cpu", warm_start=None)
    weights = run.load_best(fingerprint(config.identity()))
    target = target_of(config)
    model = model_of(config, target)
    t, x = times_of(config), inputs_of(config, model.input_size, validation=True)
    require_targets(run, kept_targets(target(x[:1], t)))
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the weights in {run.path} do not fit its config: {str(error).splitlines()[0]}") from error
    t, x = t.to(DTYPES[config.dtype]), x.to(DTYPES[config.dtype])
    solver = solver_of(config, model, t, lambda: inputs_of(config, model.input_size).to(x))
    return LoadedRun(model, target, t, x, solver, config)


def read_config(run: RunDirectory, *, trust_code: bool = False, trusted: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment of a run directory.

    Args:
        run: the directory.
        trust_code: whether its kernel, model or activation may be code ('module:function' or 'file.py:function'): building the
            experiment runs it.
        trusted: code that it may name without that.

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
    names = [name for name in ("kernel", "model", "activation") if getattr(config, name) in set(config.code()) - set(trusted)]
    if names and not trust_code:
        raise ValueError(
            f"the run in {run.path} names code as its {names[0]}, {getattr(config, names[0])}, which would be run: if you trust "
            "it, add --trust-code (in Python: trust_code=True)"
        )
    return config


def kept_targets(targets: Tensor) -> list[float]:
    """The targets that a run keeps: a few values of the first sequence, over all of its time."""
    values = targets[0].flatten()
    return values[torch.linspace(0, len(values) - 1, min(_KEPT_TARGETS, len(values))).round().long()].tolist()


def require_targets(run: RunDirectory, targets: list[float]) -> None:
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
