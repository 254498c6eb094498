"""Families of trained models: one kind of model, one target, growing widths."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn import activations, models
from odernn.models import SequenceModel
from odernn.solvers import DivergedSolve, Fused, Solver
from odernn.training import MAX_SEED, Data, Trainer, TrainingConfig
from odernn.warm_start import widen
from targets import Functional, arguments, inputs

from .beta_grids import enclose_radius, spanning
from .perturbation import PerturbationCurve, perturbation_error
from .target_memory import target_memory
from .verdict import LONGER, Verdict, judge_stable_approximation

# Models in continuous time: perturbation errors are those of their solves.
FAMILY_MODELS = (models.ContinuousRNN.name, models.StateSpaceModel.name)
# From below 1/T of the horizon to where perturbed rates are no longer resolved by the samples.
FAMILY_BETAS = np.concatenate([[0.0], np.geomspace(1e-4, 0.5, 16)])
# Streams of random numbers for inputs, far apart from one another.
_TEST_SEED, _SLOW_SEED, _START_SEED = 1_000_000, 2_000_000, 3_000_000
# L-BFGS steps between two looks at whether it has stalled.
_ROUND = 10


@dataclass(frozen=True)
class Family:
    """Settings of models that differ in width only, of their training and of their inputs.

    Args:
        model: 'rnn' or 'ssm'.
        activation, recurrence, parameterization: of the models.
        bias: whether the models have b. Linear functionals are odd, and so are linear, hardtanh and tanh models without b; with
            it training on finitely many inputs leaves a rest state that any perturbation of W moves.
        widths: m, increasing; each model starts from the one before.
        horizon: T. Longer memory stays unseen: take it far beyond the target's time scale (about 1000).
        points: samples on [0, T].
        scales: time scales of the inputs: those of one half lie between the first two numbers, those of the other between the
            last two. The shortest is a few samples long, so that there is nothing to learn beyond the samples' resolution.
        amplitude: standard deviation of the inputs, and the value of the constant one.
        sequences: training inputs, at least two, and as many to measure the error on.
        starts: restarts at the smallest width; maximum attempts at others, which take the first that does not diverge.
        steps: L-BFGS steps for each width.
        weight_decay: of U and c.
        seed: of weights and inputs, >= 0.

    Raises:
        ValueError: a setting that is out of its range, or names that do not go together.
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

    def __post_init__(self) -> None:
        arguments.choice("model", self.model, FAMILY_MODELS)
        arguments.instance("bias", self.bias, bool, "give True or False")
        widths = arguments.counts("widths", self.widths)
        if not widths or any(wide <= narrow for narrow, wide in zip(widths, widths[1:])):
            raise ValueError(f"widths are {widths}, expected increasing ones, at least one; give for example (2, 4, 8)")
        scales = arguments.real_tensor("scales", self.scales).tolist()
        if not isinstance(scales, list) or len(scales) != 3 or not 0 < scales[0] <= scales[1] <= scales[2]:
            raise ValueError(f"scales are {self.scales}, expected three times, 0 < shortest <= middle <= longest")
        checked: dict[str, Any] = {"widths": widths, "scales": tuple(scales)}
        checked |= {name: arguments.number(name, getattr(self, name), above=0) for name in ("horizon", "amplitude")}
        checked["weight_decay"] = arguments.number("weight_decay", self.weight_decay, least=0)
        for name, least in (("points", 2), ("sequences", 2), ("starts", 1), ("steps", 1)):
            checked[name] = arguments.count(name, getattr(self, name), least)
        checked["seed"] = arguments.count("seed", self.seed, least=0, most=MAX_SEED - 1)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self.make_model(widths[0], 0)  # refuses unknown names, and those that do not go together

    def longer(self) -> Family:
        """The same on [0, 4T], with the same sampling step and the longest time scale of the inputs times 4."""
        shortest, middle, longest = self.scales
        return replace(
            self,
            horizon=LONGER * self.horizon,
            points=LONGER * (self.points - 1) + 1,
            scales=(shortest, middle, LONGER * longest),
        )

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


def train_family(
    family: Family,
    target: Functional,
    start: SequenceModel | None = None,
) -> list[SequenceModel]:
    """Trains every width by L-BFGS: the narrowest from several random starts, of which the best counts, each other from the one
    before (`odernn.warm_start.widen`), so that E_m(0) does not rise with m. A start that diverges is replaced by the next.

    Args:
        target: H, of one input and one output channel.
        start: a trained model, no wider than the narrowest width, which then starts from it in place of random weights.

    Raises:
        ValueError: settings that do not fit together.
        DivergedSolve: all starts of a width diverged.

    Warns:
        InaccurateSolve: the steps of training do not resolve a model that it ended at.
    """
    t, x, x_test = family.t, family.training_inputs(), family.test_inputs()
    data = Data(t, x, target(x, t), x_test, target(x_test, t))
    config = TrainingConfig(
        epochs=max(1, family.steps // _ROUND), iterations=min(_ROUND, family.steps), weight_decay=family.weight_decay
    )
    solver = _solver(family)
    trained: list[SequenceModel] = []
    for m in family.widths:
        runs = []
        diverged: DivergedSolve | None = None
        narrower = trained[-1] if trained else start
        for attempt in range(family.starts):
            model = family.make_model(m, family.seed + attempt * _START_SEED)
            if narrower is not None:
                widen(narrower, model)
            # Whether the solver's steps resolve it is checked below, for the best start alone.
            trainer = Trainer(model, data, config, solver=None if solver is None else solver.unchecked())
            try:
                trainer.run(progress=False)
            except DivergedSolve as error:
                diverged = error
                continue
            runs.append(trainer)
            if narrower is not None:
                break
        if not runs:
            raise DivergedSolve(f"all {family.starts} starts of width {m} diverged, the last: {diverged}")
        best = min(runs, key=lambda trainer: trainer.history[-1]["loss"])
        trained.append(best.model)
        best.solver = solver
        best.validation_error(check=True)
    return trained


def _solver(family: Family) -> Solver | None:
    """Two rk4 steps a sample for models that are not linear in their state: stable up to five times the sampling rate, and faster
    rates cannot be learnt from the samples."""
    activation = activations.get(family.activation)
    exact = family.model == "ssm" or activation.linear
    return None if exact or activation.kernel is None else Fused("rk4", substeps=2)


def family_curves(
    family: Family,
    trained: Sequence[SequenceModel],
    target: Functional,
    *,
    blocks: Sequence[str] = ("recurrent", "all"),
    betas: NDArray[np.float64] | Sequence[float] | None = None,
    error: str = "relative_l2",
    **search: Any,
) -> list[PerturbationCurve]:
    """Perturbation curves of every width on the test inputs, for `judge_stable_approximation`; they carry the target's memory.

    In single precision: the errors that matter are far above its rounding, and it takes about half the time.

    Args:
        betas: None for FAMILY_BETAS, continued as the horizon and the radii need it.
        search: passed on to `perturbation_error`.
    """
    t, x = family.t, family.test_inputs()
    y = target(x, t)
    try:
        memory = target_memory(target, family.horizon, family.horizon / (family.points - 1))
    except ValueError:
        # A response that never changes has no memory function; the curves say how well it is approximated.
        memory = None
    t, x, y = t.float(), x.float(), y.float()

    def curve(model: SequenceModel, block: str, betas: NDArray[np.float64] | Sequence[float]) -> PerturbationCurve:
        found = perturbation_error(model, y, x, t, betas, blocks=block, error=error, seed=family.seed, **search)
        return replace(found, target_memory=memory)

    return [
        enclose_radius(partial(curve, model, block), spanning(FAMILY_BETAS, family.horizon))
        if betas is None
        else curve(model, block, betas)
        for model in (copy.deepcopy(model).float() for model in trained)
        for block in blocks
    ]


def judge_family(family: Family, target: Functional, **search: Any) -> Verdict:
    """Trains a family on [0, T] and its widest model on [0, 4T], from where it ended on [0, T], and judges both.

    Args:
        search: of `family_curves`.

    Raises:
        ValueError, DivergedSolve: as `train_family`.
    """
    trained = train_family(family, target)
    longer = replace(family.longer(), widths=family.widths[-1:])
    curves = family_curves(family, trained, target, **search)
    # At the longer horizon the rule looks at the recurrent block alone.
    search = {**search, "blocks": ("recurrent",)}
    curves += family_curves(longer, train_family(longer, target, start=trained[-1]), target, **search)
    return judge_stable_approximation(curves)
