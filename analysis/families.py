"""Families of trained models: one kind of model, one target, growing widths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn import models
from odernn.models import SequenceModel
from odernn.solvers import DivergedSolve, Fused, Solver
from odernn.training import Data, Trainer, TrainingConfig
from odernn.warm_start import embed
from targets import Functional, inputs

from .perturbation import PerturbationCurve, perturbation_error

# From below 1/T of the horizon to where perturbed rates are no longer resolved by the samples.
FAMILY_BETAS = np.concatenate([[0.0], np.geomspace(1e-4, 0.5, 16)])
# Streams of random numbers for inputs, far apart from one another.
_TEST_SEED, _SLOW_SEED, _START_SEED = 1_000_000, 2_000_000, 3_000_000
# L-BFGS steps between two looks at whether it has stalled.
_ROUND = 10


@dataclass(frozen=True)
class Family:
    """Which models, trained how, on which inputs.

    Args:
        model: 'rnn' or 'ssm'.
        activation, recurrence, parameterization: of the models.
        bias: whether the models have b. Linear functionals are odd, and so are linear, hardtanh and tanh models without b; with
            it training on finitely many inputs leaves a rest state that any perturbation of W moves.
        widths: m, increasing; each model starts from the one before.
        horizon: T. It decides what can be seen: take it far beyond the target's time scale (about 1000).
        points: samples on [0, T].
        scales: time scales of the inputs: half of them have one between the first two numbers, the others between the last two.
            The shortest is a few samples long, so that there is nothing to learn beyond the samples' resolution.
        amplitude: standard deviation of the inputs, and the value of the constant one.
        sequences: training inputs, and as many to measure the error on.
        starts: random starts of the narrowest width; of the others, how many may be tried until one does not diverge.
        steps: L-BFGS steps for each width.
        weight_decay: of U and c.
        seed: of weights and inputs.
    """

    model: str = "rnn"
    activation: str = "tanh"
    recurrence: str = "dense"
    parameterization: str = "direct"
    bias: bool = False
    widths: tuple[int, ...] = (2, 4, 8, 16)
    horizon: float = 800.0
    points: int = 801
    scales: tuple[float, float, float] = (2.0, 30.0, 300.0)
    amplitude: float = 1.0
    sequences: int = 16
    starts: int = 3
    steps: int = 200
    weight_decay: float = 1e-4
    seed: int = 0

    @property
    def t(self) -> Tensor:
        return torch.linspace(0, self.horizon, self.points, dtype=torch.float64)

    def make_model(self, m: int, seed: int) -> SequenceModel:
        """An untrained model of width m."""
        return models.MODELS[self.model](
            1,
            m,
            1,
            self.activation,
            self.recurrence,
            self.parameterization,
            bias=self.bias,
            seed=seed,
            dtype=torch.float64,
        )

    def training_inputs(self) -> Tensor:
        """(sequences, points, 1)."""
        return self._inputs(self.seed)

    def test_inputs(self) -> Tensor:
        """Others of the same kind, (sequences, points, 1)."""
        return self._inputs(self.seed + _TEST_SEED)

    def _inputs(self, seed: int) -> Tensor:
        """Random Fourier series, half of them of many time scales, the others slow, the last one constant: noise alone does not
        show the tail of a memory."""
        shortest, middle, longest = self.scales
        fast = self.sequences // 2
        x = inputs.random_fourier(self.t, fast, seed=seed, length_scales=(shortest, middle))
        slow = inputs.random_fourier(self.t, self.sequences - fast, seed=seed + _SLOW_SEED, length_scales=(middle, longest))
        slow[-1] = 1.0
        return self.amplitude * torch.cat([x, slow])


def train_family(family: Family, target: Functional, on_width: Callable[[int, float], None] | None = None) -> list[SequenceModel]:
    """Trains every width by L-BFGS: the narrowest from several random starts, of which the best counts, each other from the one
    before (`odernn.warm_start.embed`), so that E_m(0) does not rise with m. A start that diverges is replaced by the next.

    Args:
        target: H, of one input and one output channel.
        on_width: called after each width with m and the relative L2 error on the test inputs.

    Raises:
        ValueError: settings that do not fit together.
        DivergedSolve: all starts of a width diverged.
    """
    t, x, x_test = family.t, family.training_inputs(), family.test_inputs()
    data = Data(t, x, target(x, t), x_test, target(x_test, t))
    config = TrainingConfig(
        epochs=max(1, family.steps // _ROUND), iterations=min(_ROUND, family.steps), weight_decay=family.weight_decay
    )
    trained: list[SequenceModel] = []
    for m in family.widths:
        runs = []
        diverged: DivergedSolve | None = None
        for start in range(family.starts):
            model = family.make_model(m, family.seed + start * _START_SEED)
            if trained:
                embed(trained[-1], model)
            trainer = Trainer(model, data, config, solver=_solver(family))
            try:
                trainer.run(progress=False)
            except DivergedSolve as error:
                diverged = error
                continue
            runs.append(trainer)
            if trained:
                break
        if not runs:
            raise DivergedSolve(f"all {family.starts} starts of width {m} diverged, the last: {diverged}")
        best = min(runs, key=lambda trainer: trainer.history[-1]["loss"])
        trained.append(best.model)
        if on_width is not None:
            on_width(m, best.validation_error())
    return trained


def _solver(family: Family) -> Solver | None:
    """Two rk4 steps a sample for what is not linear in its state: stable up to five times the sampling rate, and samples cannot
    teach faster rates."""
    return None if family.model == "ssm" or family.activation == "linear" else Fused("rk4", substeps=2)


def family_curves(
    family: Family,
    trained: Sequence[SequenceModel],
    target: Functional,
    *,
    blocks: Sequence[str] = ("recurrent", "all"),
    betas: NDArray[np.float64] | Sequence[float] = FAMILY_BETAS,
    error: str = "relative_l2",
    **search: Any,
) -> list[PerturbationCurve]:
    """Perturbation curves of every width on the test inputs, for `judge_stable_approximation`.

    In single precision: the errors that matter are far above its rounding, and it takes about half the time.

    Args:
        search: passed on to `perturbation_error`.
    """
    t, x = family.t, family.test_inputs()
    y = target(x, t)
    t, x, y = t.float(), x.float(), y.float()
    return [
        perturbation_error(model, y, x, t, betas, blocks=block, error=error, seed=family.seed, **search)
        for model in (copy.deepcopy(model).float() for model in trained)
        for block in blocks
    ]
