"""A training in one call, with or without a run directory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..models import SequenceModel
from ..paths import Interpolation
from ..runs import CHECKPOINT, RunDirectory
from ..solvers import Solver
from . import saved
from .config import TrainingConfig
from .data import Data
from .trainer import Trainer


def train(
    model: SequenceModel,
    data: Data,
    config: TrainingConfig | None = None,
    *,
    solver: Solver | str | None = None,
    interpolation: Interpolation = "linear",
    progress: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Trainer:
    """Trains a model in place and leaves it with the weights of its best validation error.

        trainer = train(model, Data(t, x, H(x, t), x_validation, H(x_validation, t)))
        trainer = train(model, Data.split(t, x, y))    # NaN in y: a missing target
        trainer.best_error, trainer.history

    Args:
        model, data, solver, interpolation: of `Trainer`.
        config: optimisation settings; None for the defaults of `TrainingConfig`.
        progress: shows a progress bar on a terminal.
        out: run directory to make, saved after every epoch: `load_run(out)` has model and history. The data are not saved.
        resume: whether a run of the same model, settings and data that `out` holds goes on where it stopped.
        overwrite: whether a run that `out` holds is replaced.

    Returns:
        The trainer: `best_error` (relative L2, of the validation set), `best_epoch`, and in `history` a row for each epoch.

    Raises:
        DivergedSolve: as `Trainer.run`.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN, Data, TrainingConfig, train
        >>> from targets import inputs, make_target
        >>> t = torch.linspace(0, 5, 51, dtype=torch.float64)
        >>> x, H = inputs.white_noise(t, batch=20), make_target("exponential")
        >>> model = ContinuousRNN(1, 2, 1, "linear", "diagonal", "softplus", seed=0, dtype=torch.float64)
        >>> trainer = train(model, Data.split(t, x, H(x, t)), TrainingConfig(epochs=20))
        >>> trainer.best_error < 1e-3
        True
    """
    trainer = Trainer(model, data, config or TrainingConfig(), solver=solver, interpolation=interpolation)
    if resume and overwrite:
        raise ValueError("overwrite and resume contradict each other: leave one out")
    if out is None:
        if resume or overwrite:
            raise ValueError("resume and overwrite are about the run in a directory: give out=, too")
        trainer.best_error = trainer.validation_error()
        trainer.run(progress=progress)
    else:
        _train_in(trainer, Path(out), resume, overwrite, progress)
    trainer.finish()
    return trainer


def _train_in(trainer: Trainer, out: Path, resume: bool, overwrite: bool, progress: bool) -> None:
    """Trains in a run directory, which is good after every epoch."""
    with ExitStack() as held:
        going = resume and (out / CHECKPOINT).exists()
        run = saved.open_run(out) if going else RunDirectory.create(out, saved.record(trainer), overwrite=overwrite, hold=True)
        held.enter_context(run.writing())
        held.callback(run.unlock)
        if going:
            saved.restore(trainer, run)
        else:
            trainer.best_error = trainer.validation_error()
            saved.write(trainer, run)
        trainer.run(lambda trainer, improved: saved.write(trainer, run, improved=improved), progress=progress)
        saved.write(trainer, run)
        saved.write_summary(trainer, run)
        trainer._saved_to = out.resolve()
