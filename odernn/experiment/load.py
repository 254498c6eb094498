"""A run directory becomes a model again."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from targets import Functional

from ..models import SequenceModel
from ..paths import Interpolation
from ..runs import METRICS, RunDirectory
from ..seals import fingerprint
from ..solvers import Solver
from ..training import Data, TrainingConfig, saved
from .config import DTYPES, ExperimentConfig
from .parts import data_of, inputs_of, model_of, solver_of, target_of, times_of

# Targets that are kept with a run: so many values, and how far they may move (relative to the largest) on another machine.
_KEPT_TARGETS, _TARGETS_MAY_MOVE = 16, 1e-6


@dataclass(frozen=True)
class LoadedRun:
    """A trained run: the model with its best weights, and what it was trained on.

    Args:
        model: on the CPU.
        target: H; None where it was trained on data of a file.
        t: (points,), of the validation inputs; (validation_size, points) where each has times of its own.
        validation_inputs: (validation_size, points, input); none, (0, points, input), where the run was saved by a `Trainer`,
            which keeps no data.
        solver: that of the best weights; None for a discrete model.
        config: of the experiment; None where the run was saved by a `Trainer`.
        data: of the file that it was trained on, in the model's precision; None for a target.
        training: the settings of its training.
        interpolation: of the inputs between their samples.
        path: of the run directory.

    Example:
        >>> from odernn import load_run
        >>> run = load_run("runs/mine")  # doctest: +SKIP
        >>> run.model, run.target, run.t, run.solver  # doctest: +SKIP
    """

    model: SequenceModel
    target: Functional | None
    t: Tensor
    validation_inputs: Tensor
    solver: Solver | None
    config: ExperimentConfig | None
    data: Data | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    interpolation: Interpolation = "linear"
    path: Path = Path()

    @property
    def history(self) -> list[dict[str, float]]:
        """A row for each epoch, as `Trainer.history` has them; empty before the first.

        Raises:
            ValueError: metrics.csv is damaged.
        """
        path = self.path / METRICS
        if not path.exists():
            return []
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}): --resume {self.path} writes it again") from error

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        learnt = "own data" if self.target is None else repr(self.target)
        return f"LoadedRun({self.path}: {type(self.model).__name__} of {parameters} weights; {learnt}; solver {self.solver})"


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)


def load_run(
    directory: str | Path, *, model: SequenceModel | None = None, trust_code: bool = False, trusted: Sequence[str] = ()
) -> LoadedRun:
    """The model of a run directory, on the CPU; neither training data nor an optimiser is made.

    It reads what `train_ode.py` and `Experiment` leave, and what `train(..., out=path)` and `Trainer.save(path)` do. Of these the
    data are not saved: target and data are None there.

    Args:
        directory: of the run.
        model: takes the weights, where the model is a class, a field or an activation of your own, whose code is not saved.
        trust_code, trusted: whether code that the run names may be run, see `read_config`.

    Raises:
        ValueError: missing, damaged or not a run, or one whose kernel's code or data have changed, or a model whose code is not
            saved, or that the weights do not fit.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, Data, TrainingConfig, load_run, train
        >>> t, x = torch.linspace(0, 1, 11), torch.randn(10, 11, 1, generator=torch.Generator().manual_seed(0))
        >>> model = ContinuousRNN(1, 2, 1, "linear", seed=0)
        >>> trainer = train(model, Data.split(t, x, x.cumsum(1)), TrainingConfig(epochs=1), out="runs/mine")
        >>> run = load_run("runs/mine")
        >>> run.model.hidden_size, run.target  # the data of one's own are not saved
        (2, None)
    """
    path = Path(directory)
    if path.is_file():
        raise ValueError(
            f"{path} is a file, expected a run directory: weights that torch.save wrote go into their model by "
            "model.load_state_dict(torch.load(path, weights_only=True)), and Trainer.save leaves a directory"
        )
    run = RunDirectory.open(path)
    if saved.ENTRY in run.config():
        one = saved.read(run, model)
        none = torch.zeros(0, len(one.t), one.model.input_size, dtype=one.t.dtype)
        return LoadedRun(one.model, None, one.t, none, one.solver, None, None, one.training, one.interpolation, path)
    config = replace(read_config(run, trust_code=trust_code, trusted=trusted), device="cpu", warm_start=None)
    weights = run.load_best(fingerprint(config.identity()))
    target, data, given = None, None, model
    if config.data is None:
        target = target_of(config)
        model = given or model_of(config, target)
        t, x = times_of(config), inputs_of(config, model.input_size, validation=True)
        require_targets(run, kept_targets(target(x[:1], t)))
    else:
        data = data_of(config)[1].to(dtype=DTYPES[config.dtype])
        model, t, x = given or model_of(config, None, data), data.validation.t, data.validation.x
    if given is not None:
        saved.take(given, weights, f"the weights in {run.path}")
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the weights in {run.path} do not fit its config: {str(error).splitlines()[0]}") from error
    more: dict[str, Any] = {"training": config.training, "interpolation": config.interpolation, "path": path}
    if data is not None:
        return LoadedRun(model, None, t, x, solver_of(config, model, data.t, lambda: data.x), config, data, **more)
    t, x = t.to(DTYPES[config.dtype]), x.to(DTYPES[config.dtype])
    solver = solver_of(config, model, t, lambda: inputs_of(config, model.input_size).to(x))
    return LoadedRun(model, target, t, x, solver, config, **more)


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
