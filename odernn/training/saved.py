"""Trainings saved from Python: the run directory of a `Trainer`, and what is read back from it.

The model is saved as its `config()` and its weights; the data are not, only their times and a checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from targets import arguments, grids

from ..activations import ACTIVATIONS
from ..models import MODELS, SequenceModel, build
from ..paths import Interpolation
from ..runs import RunDirectory
from ..seals import fingerprint
from ..solvers import Adaptive, Auto, Exact, Fused, Solver, TorchDiffEq
from ..version import __version__
from .config import LATER, TrainingConfig
from .data import Data

if TYPE_CHECKING:
    from .trainer import Trainer

# The entry of config.json that tells such a run from one of an experiment.
ENTRY = "trained"
_SOLVERS: dict[str, type[Solver]] = {cls.__name__: cls for cls in (Adaptive, Auto, Exact, Fused, TorchDiffEq)}
_DTYPES = {str(dtype).partition(".")[2]: dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
# How long a training goes on does not tell one from another.
_FREE = ("epochs", "patience")


@dataclass(frozen=True)
class Trained:
    """A saved training: the model with its best weights, and how it was trained.

    Args:
        t: even times, (points,), as long as those of the data and as many.
        solver: that of the training; None for the automatic choice, and for one of the user's own, which is not saved.
    """

    model: SequenceModel
    t: Tensor
    solver: Solver | None
    interpolation: Interpolation
    training: TrainingConfig


def record(trainer: Trainer) -> dict[str, Any]:
    """The content of config.json."""
    model, data, solver = trainer.model, trainer.data, trainer.chosen_by or trainer.solver
    config = model.config()
    return {
        ENTRY: {
            "model": config,
            "class": type(model).__name__,
            # Whether the config tells all: a class, or an activation, of the user's own is code, which is not saved.
            "whole": MODELS.get(str(config.get("model"))) is type(model)
            and ACTIVATIONS.get(model.activation.name) == model.activation,
            "dtype": str(next(model.parameters(), trainer.data.x).dtype).partition(".")[2],
            "training": asdict(trainer.config),
            "solver": _described(solver),
            "interpolation": trainer.interpolation,
            "horizon": grids.span(data.t),
            "points": data.t.shape[-1],
            "data": checksum(data),
        }
    }


def checksum(data: Data) -> str:
    """16 digits that stand for all numbers of the data."""
    digest = hashlib.sha256()
    for item in fields(data):
        tensor = getattr(data, item.name)
        if tensor is not None:
            plain = tensor.detach().cpu().contiguous()
            digest.update(f"{item.name} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def identity(content: dict[str, Any]) -> str:
    """The fingerprint of what a training is; weights carry it."""
    entry = content[ENTRY]
    training = _told_apart(entry["training"])
    return fingerprint({**{name: entry[name] for name in ("model", "dtype", "data")}, "training": training})


def write(trainer: Trainer, run: RunDirectory, *, improved: bool = True) -> None:
    """Everything that the training has come to, the checkpoint first: the other files are made from it."""
    content = record(trainer)
    of = identity(content)
    run.save_checkpoint({**trainer.state_dict(), "solver": _described(trainer.solver)}, of)
    if improved:
        run.save_best(trainer.best_weights, of)
    run.write_config(content)
    run.write_metrics(trainer.history)


def write_summary(trainer: Trainer, run: RunDirectory) -> None:
    """summary.json: what came out, at the best weights."""
    best = trainer.history[trainer.best_epoch - 1] if trainer.best_epoch else {}
    run.write_summary(
        {
            "validation_relative_l2": trainer.best_error,
            "stability_margin": best.get("stability_margin"),
            "slowest_rate": best.get("slowest_rate"),
            "evaluations_training": trainer.evaluations,
            "seconds": trainer.seconds,
            "epochs": trainer.epoch,
            "stopped": trainer.stopped,
            "best_epoch": trainer.best_epoch,
            "solver": str(trainer.solver or "none"),
            "device": str(trainer.data.x.device),
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "versions": {"odernn": __version__} | {name: version(name) for name in ("torch", "torchdiffeq", "numpy", "scipy")},
        }
    )


def restore(trainer: Trainer, run: RunDirectory) -> None:
    """Takes up a training where its run directory left it.

    Raises:
        ValueError: the run is of another model, of other settings or of other data.
    """
    content = run.config()
    theirs, ours = entry_of(run, content), record(trainer)[ENTRY]
    if theirs["data"] != ours["data"]:
        raise ValueError(
            f"the run in {run.path} was trained on other data (their checksum differs): give the same; to train its model on "
            "others, train(load_run(path).model, data)"
        )
    _require_same(run, "model", theirs["model"], ours["model"])
    for name in ("interpolation", "solver"):
        _require_same(run, name, *({name: one[name]} for one in (theirs, ours)))
    _require_same(run, "training", *(_told_apart(one["training"]) for one in (theirs, ours)))
    state = run.load_checkpoint(identity(content))
    try:
        trainer.load_state_dict(state)
    except (AttributeError, IndexError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"the checkpoint in {run.path} does not fit its config ({reason}): start the run again") from error
    if state.get("solver") is not None:
        trainer.solver = _solver(state["solver"])


def read(run: RunDirectory, model: SequenceModel | None = None) -> Trained:
    """The training of a run directory.

    Args:
        model: takes the weights; needed where the model's code is the user's own.

    Raises:
        ValueError: damaged, or a model that cannot be made from what is saved, or a given one that the weights do not fit.
    """
    content = run.config()
    entry = entry_of(run, content)
    if model is None:
        if not entry["whole"]:
            raise ValueError(
                f"the run in {run.path} holds weights of a {entry['class']}, whose code is not saved: make that model and give "
                "load_run(path, model=model)"
            )
        model = made(run, entry)
    elif isinstance(model, SequenceModel):
        _require_same(run, "model", entry["model"], {**model.config(), "ensemble": entry["model"].get("ensemble")})
    take(model, run.load_best(identity(content)), f"the weights in {run.path}")
    t = torch.linspace(0, entry["horizon"], entry["points"], dtype=torch.float64)
    return Trained(model, t, _solver(entry["solver"]), entry["interpolation"], TrainingConfig(**entry["training"]))


def made(run: RunDirectory, entry: dict[str, Any]) -> SequenceModel:
    """The model of an entry, untrained, on the CPU."""
    try:
        return build(entry["model"], dtype=_DTYPES[entry["dtype"]])
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"the model of the run in {run.path} cannot be made ({str(error).splitlines()[0]}): make it and give "
            "load_run(path, model=model)"
        ) from error


def take(model: SequenceModel, weights: dict[str, Any], of: str) -> None:
    """Puts weights into a model; `of` names them in the message of one line where they do not fit."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model is {arguments.kind_of(model)}, expected a model of odernn: leave it out, or give one")
    own = model.state_dict()
    differing = sorted(own.keys() ^ weights.keys())
    differing = differing or [name for name, value in own.items() if getattr(weights[name], "shape", None) != value.shape]
    if differing:
        there, here = (
            f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "missing"
            for value in (weights.get(differing[0]), own.get(differing[0]))
        )
        raise ValueError(
            f"{of} do not fit the model: {differing[0]} is {there} there, {here} in the model ({len(differing)} such in all): "
            "give the model that was trained"
        )
    model.load_state_dict(weights)


def entry_of(run: RunDirectory, content: dict[str, Any]) -> dict[str, Any]:
    """What config.json says of the training.

    Raises:
        ValueError: something is missing or of another type; one line.
    """
    entry = content.get(ENTRY)
    tests: dict[str, Callable[[Any], bool]] = {
        "model": lambda value: isinstance(value, dict),
        "class": lambda value: isinstance(value, str),
        "whole": lambda value: isinstance(value, bool),
        "dtype": lambda value: value in _DTYPES,
        "training": lambda value: (
            isinstance(value, dict) and {**LATER, **value}.keys() == TrainingConfig.__dataclass_fields__.keys()
        ),
        "solver": lambda value: value is None or (isinstance(value, list) and len(value) == 2 and value[0] in _SOLVERS),
        "interpolation": lambda value: value in get_args(Interpolation),
        "horizon": lambda value: isinstance(value, float) and value > 0,
        "points": lambda value: type(value) is int and value >= 2,
        "data": lambda value: isinstance(value, str),
    }
    wrong = [name for name, holds in tests.items() if not (isinstance(entry, dict) and name in entry and holds(entry[name]))]
    if wrong or entry is None:
        raise ValueError(
            f"the config in {run.path} is damaged or of another version ({', '.join(wrong)}): put back what was written"
        )
    return entry


def _told_apart(training: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell one training from another; those that earlier versions did not have only where they are set."""
    return {name: value for name, value in training.items() if name not in _FREE and (name not in LATER or value != LATER[name])}


def resumed_settings(run: RunDirectory, epochs: int | None) -> tuple[dict[str, Any], TrainingConfig, Solver | None]:
    """What a training goes on with: its entry, its settings (with other epochs), and its solver."""
    entry = entry_of(run, run.config())
    training = TrainingConfig(**(entry["training"] | ({} if epochs is None else {"epochs": epochs})))
    return entry, training, _solver(entry["solver"])


def open_run(path: str | Path) -> RunDirectory:
    """A run directory that Python saved; raises ValueError for one of an experiment."""
    run = RunDirectory.open(Path(path))
    if ENTRY not in run.config():
        raise ValueError(f"{path} is the run of an experiment, not of a Trainer: go on with train_ode.py --resume {path}")
    return run


def _require_same(run: RunDirectory, what: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    names = [name for name in dict.fromkeys((*theirs, *ours)) if theirs.get(name) != ours.get(name)]
    if names:
        changed = "; ".join(f"{name} is {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in names)
        raise ValueError(f"the run in {run.path} has other settings of its {what} ({changed}): give the same, or another path")


def _described(solver: Solver | None) -> list[Any] | None:
    """A solver as JSON values; None for one of the user's own."""
    if solver is None or _SOLVERS.get(type(solver).__name__) is not type(solver) or not is_dataclass(solver):
        return None
    return [type(solver).__name__, asdict(solver)]


def _solver(saved: list[Any] | None) -> Solver | None:
    try:
        return None if saved is None else _SOLVERS[saved[0]](**saved[1])
    except TypeError as error:
        raise ValueError(f"the solver {saved!r} is of another version of odernn: give solver= one") from error
