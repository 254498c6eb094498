"""Families of trained models: one kind of model, one target, growing widths."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn import Activation, LeakyRNN, LeakyVoltageRNN, activations, models
from odernn.leaky import time_constant
from odernn.models import SequenceModel
from odernn.progress import Progress
from odernn.solvers import DivergedSolve, Fused, Solver
from odernn.training import MAX_SEED, OPTIMIZERS, Data, Trainer, TrainingConfig, resolve
from odernn.warm_start import slope_at_zero, spread_rates, widen
from targets import ConvolutionalFunctional, Functional, StepResponseFunctional, arguments, inputs

from .beta_grids import enclose_radius, spanning
from .linear.starts import linear_error, linear_fits, placed
from .perturbation import PerturbationCurve, perturbation_error
from .perturbation.errors import unperturbed_error
from .target_memory import target_memory
from .verdict import LONGER, Verdict, judge_stable_approximation

# Models in continuous time: perturbation errors are those of their solves.
FAMILY_MODELS = tuple(cls.name for cls in (models.ContinuousRNN, models.StateSpaceModel, LeakyRNN, LeakyVoltageRNN))
# From below 1/T of the horizon to where perturbed rates are no longer resolved by the samples.
FAMILY_BETAS = np.concatenate([[0.0], np.geomspace(1e-4, 0.5, 16)])
# Streams of random numbers for inputs, far apart from one another.
_TEST_SEED, _SLOW_SEED, _START_SEED, _VALIDATION_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
# L-BFGS steps between two looks at whether it has stalled.
_ROUND = 10
# L-BFGS steps in place of which one step of Levenberg-Marquardt is taken: from random weights, and from a linear model.
_LBFGS_STEPS, _LBFGS_STEPS_NEAR = 10, 40
# Training that gives a stable model a growing mode keeps it only if the error falls below this part of what it was: units that
# hardly contribute drift there, and a perturbation of their readout shows it.
_WORTH_GROWTH = 0.5
FAMILY_STARTS = ("linear", "geometric", "random")


@dataclass(frozen=True)
class Family:
    """Settings of models that differ in width only, of their training and of their inputs.

    Args:
        model: 'rnn', 'ssm', 'leaky' or 'leaky_voltage'.
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
        start: 'linear': each width from the narrower one, or from the best linear model of its structure
            (`analysis.linear.starts.linear_fits`) in the linear range of its activation, whichever is better; of a nonlinearity
            of a linear functional that of the latter, tried beside random ones;
            'random' where there is none: for a target without a scalar kernel, an activation that is not linear around 0 (relu,
            sigmoid), or a recurrence without real or complex modes. 'geometric': the smallest width from rates geometric on
            [1/T, 1]. 'random': from random ones.
        optimizer: 'lm', 'lbfgs', or 'auto': 'lm' where it fits.
        steps: L-BFGS steps for each width; of 'lm' a tenth of them, from a linear model, where little is left to learn, a 40th.
        weight_decay: of U and c. It bounds the accuracy, because tanh is linear for small states alone and these need a large c:
            with 1e-4 models end at 0.2 % of |H| and more, with 1e-12 at some 0.02 % of a kernel that oscillates, with 0 where
            the best linear model is, and then any perturbation of c shows.
        seed: of weights and inputs, >= 0.
        tau: time constant of the leaky models; None for 1.

    Raises:
        ValueError: a setting that is out of its range, or names that do not go together.

    Example:
        >>> from analysis import Family
        >>> family = Family(activation="tanh", recurrence="symmetric", parameterization="softplus", widths=(2, 4, 8))
    """

    model: str = "rnn"
    activation: str | Activation = "tanh"
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
    start: str = "linear"
    optimizer: str = "auto"
    steps: int = 200
    weight_decay: float = 1e-12
    seed: int = 0
    tau: float | None = None

    def __post_init__(self) -> None:
        arguments.choice("model", self.model, FAMILY_MODELS)
        arguments.instance("bias", self.bias, bool, "give True or False")
        arguments.choice("start", self.start, FAMILY_STARTS)
        arguments.choice("optimizer", self.optimizer, [name for name in OPTIMIZERS if not name.startswith("adam")])
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
            **time_constant(self.tau, models.MODELS[self.model]),
        )

    def training_inputs(self) -> Tensor:
        """(sequences, points, 1)."""
        return self._inputs(self.seed)

    def validation_inputs(self) -> Tensor:
        """Others of the same kind, which choose among the steps of a training, (sequences, points, 1)."""
        return self._inputs(self.seed + _VALIDATION_SEED)

    def test_inputs(self) -> Tensor:
        """Others again, on which errors are measured, (sequences, points, 1)."""
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
    *,
    progress: bool = True,
) -> list[SequenceModel]:
    """Trains every width: the narrowest from several random starts or from the best linear model, each other from the one before
    (`odernn.warm_start.widen`) or from the best linear model where that is better, so that E_m(0) does not rise with m. A start
    that diverges is replaced by the next.

    Args:
        family: the settings.
        target: H, of one input and one output channel.
        start: a trained model, no wider than the narrowest width, which then starts from it in place of random weights.
        progress: whether a bar is shown, on a terminal and where it takes more than two seconds.

    Raises:
        ValueError: settings that do not fit together.
        DivergedSolve: all starts of a width diverged.

    Warns:
        InaccurateSolve: the steps of training do not resolve a model that it ended at.

    Example:
        >>> from analysis import Family, train_family
        >>> from targets import make_target
        >>> inputs = {"horizon": 40.0, "points": 81, "scales": (2.0, 5.0, 20.0)}
        >>> family = Family(activation="linear", recurrence="diagonal", widths=(1, 2), steps=10, **inputs)
        >>> [model.hidden_size for model in train_family(family, make_target("exponential"))]
        [1, 2]
    """
    data, solver = _data(family, target), _solver(family)
    trained: list[SequenceModel] = []
    linear = family.start == "linear" and isinstance(target, ConvolutionalFunctional)
    with Progress("training a family", len(family.widths), "widths", shown=progress) as bar:
        for m in family.widths:
            runs = []
            diverged: DivergedSolve | None = None
            models, informed = _starts(family, target, data, m, trained[-1] if trained else start)
            for model in models:
                # Whether the solver's steps resolve it is checked below, for the best start alone.
                config = _training(family, model, data, near=informed and linear)
                trainer = Trainer(model, data, config, solver=None if solver is None else solver.unchecked())
                # Levenberg-Marquardt goes far enough to learn the training inputs by heart.
                judged = trainer.config.optimizer == "lm"
                try:
                    trainer.best_error = trainer.validation_error() if judged else trainer.best_error
                    begin, error_there = trainer.best_weights, trainer.best_error
                    stable = bool(model.stability_margin() >= 0)
                    trainer.run()
                except DivergedSolve as error:
                    diverged = error
                    continue
                if judged:
                    model.load_state_dict(trainer.best_weights)
                    if stable and model.stability_margin() < 0 and trainer.best_error > _WORTH_GROWTH * error_there:
                        model.load_state_dict(begin)
                runs.append(trainer)
                if informed:
                    break
            if not runs:
                raise DivergedSolve(f"all {len(models)} starts of width {m} diverged, the last: {diverged}")
            best = min(runs, key=lambda trainer: trainer.history[-1]["loss"])
            trained.append(best.model)
            best.solver = solver
            best.validation_error(check=True)
            bar.advance(remark=f"width {m}: loss {best.history[-1]['loss']:.2e}" if best.history else "")
    return trained


def _data(family: Family, target: Functional) -> Data:
    t, x, x_validation = family.t, family.training_inputs(), family.validation_inputs()
    return Data(t, x, target(x, t), x_validation, target(x_validation, t))


def _training(family: Family, model: SequenceModel, data: Data, *, near: bool) -> TrainingConfig:
    config = resolve(TrainingConfig(family.optimizer, weight_decay=family.weight_decay), model, data, _solver(family))
    if config.optimizer == "lm":
        return replace(config, epochs=max(1, family.steps // (_LBFGS_STEPS_NEAR if near else _LBFGS_STEPS)))
    return replace(config, epochs=max(1, family.steps // _ROUND), iterations=min(_ROUND, family.steps))


def _starts(
    family: Family, target: Functional, data: Data, m: int, narrower: SequenceModel | None
) -> tuple[list[SequenceModel], bool]:
    """The models of width m to train, and whether they are in order, so that the first that does not diverge will do."""
    models = [family.make_model(m, family.seed + attempt * _START_SEED) for attempt in range(family.starts)]
    for model in models:
        if narrower is not None:
            widen(narrower, model)
        elif family.start == "geometric":
            spread_rates(model, family.horizon)
    if family.start != "linear":
        return models, narrower is not None
    slope = slope_at_zero(models[0].activation)
    # Of a nonlinearity of a linear functional that functional: what was fitted to it remembers as long.
    inner = target.innermost if isinstance(target, StepResponseFunctional) else target
    fits = [] if slope is None else linear_fits(models[0], inner, data, weight_decay=family.weight_decay, seed=family.seed)
    if not fits:
        why = (
            "its activation is not linear around 0"
            if slope is None
            else "it has no linear model of a scalar kernel to start from"
        )
        logging.getLogger("odernn").info("%s %s, m = %d: %s; random weights instead", family.model, family.activation, m, why)
        return models, narrower is not None
    solver, decay = _solver(family), family.weight_decay
    ordered = [placed(fit, family.make_model(m, family.seed), data, solver, weight_decay=decay)[0] for fit in fits]
    if narrower is not None:
        ordered.append(models[0])
        models = models[1:]
    # By validation, as the steps of the training are judged: the training inputs alone favour what was fitted to them.
    ordered = sorted(ordered, key=lambda model: linear_error(model, data, solver))
    # A linear model that is close to a nonlinear target need not be on the way to the best nonlinear one.
    return ordered + (models if inner is target or narrower is None else []), inner is target


def _solver(family: Family) -> Solver | None:
    """Two rk4 steps a sample for models that are not linear in their state: stable up to five times the sampling rate, and faster
    rates cannot be learnt from the samples. Four from linear models, which come closer than 1e-4 of |H|, the error of two."""
    activation = activations.get(family.activation)
    exact = family.model == "ssm" or activation.linear
    return None if exact or activation.kernel is None else Fused("rk4", substeps=4 if family.start == "linear" else 2)


def family_curves(
    family: Family,
    trained: Sequence[SequenceModel],
    target: Functional,
    *,
    blocks: Sequence[str] = ("recurrent", "all"),
    betas: NDArray[np.float64] | Sequence[float] | None = None,
    error: str = "relative_l2",
    progress: bool = True,
    **search: Any,
) -> list[PerturbationCurve]:
    """Perturbation curves of every width on the test inputs, for `judge_stable_approximation`; they carry the target's memory,
    and E_m(0) of the best linear model beside the trained one's (`PerturbationCurve.linear`).

    In single precision: the errors that matter are far above its rounding, and it takes about half the time.

    Args:
        family, trained, target: what `train_family` was given and gave.
        blocks, error: of `perturbation_error`.
        betas: None for FAMILY_BETAS, continued as the horizon and the radii need it.
        progress: as in `train_family`.
        search: passed on to `perturbation_error`.

    Example:
        >>> from analysis import Family, family_curves, train_family
        >>> from targets import make_target
        >>> H = make_target("exponential")
        >>> inputs = {"horizon": 40.0, "points": 81, "scales": (2.0, 5.0, 20.0)}
        >>> family = Family(activation="linear", recurrence="diagonal", widths=(1, 2), steps=10, **inputs)
        >>> curves = family_curves(family, train_family(family, H), H, blocks=["all"], draws=2, restarts=0, steps=2)
        >>> [(curve.hidden_size, curve.block_choice) for curve in curves]
        [(1, 'all'), (2, 'all')]
    """
    t, x = family.t, family.test_inputs()
    y = target(x, t)
    try:
        memory = target_memory(target, family.horizon, family.horizon / (family.points - 1))
    except ValueError:
        # A response that never changes has no memory function; the curves say how well it is approximated.
        memory = None
    data = Data(t, x, y, x, y)
    linear = {model.hidden_size: _linear_error(family, target, data, model, error) for model in trained}
    t, x, y = t.float(), x.float(), y.float()

    def curve(model: SequenceModel, block: str, betas: NDArray[np.float64] | Sequence[float]) -> PerturbationCurve:
        found = perturbation_error(model, y, x, t, betas, blocks=block, error=error, seed=family.seed, **search)
        return replace(found, target_memory=memory, linear=linear[model.hidden_size])

    curves = []
    with Progress("perturbation curves", len(trained) * len(blocks), "curves", shown=progress) as bar:
        for model in (copy.deepcopy(model).float() for model in trained):
            for block in blocks:
                if betas is None:
                    curves.append(enclose_radius(partial(curve, model, block), spanning(FAMILY_BETAS, family.horizon)))
                else:
                    curves.append(curve(model, block, betas))
                bar.advance(remark=f"width {model.hidden_size}, {block}")
    return curves


def _linear_error(family: Family, target: Functional, data: Data, model: SequenceModel, error: str) -> float | None:
    """E_m(0) of the best linear model of the same width and structure; None where there is none."""
    fits = linear_fits(model, target, data, weight_decay=family.weight_decay, seed=family.seed)
    return unperturbed_error(fits[0], data.y, data.x, data.t, error) if fits else None


def judge_family(family: Family, target: Functional, *, progress: bool = True, **search: Any) -> Verdict:
    """Trains a family on [0, T] and its widest model on [0, 4T], from where it ended on [0, T], and judges both.

    Args:
        family, target, progress: as in `train_family`.
        search: of `family_curves`.

    Raises:
        ValueError, DivergedSolve: as `train_family`.

    Example:
        >>> from analysis import Family, judge_family
        >>> from targets import make_target
        >>> verdict = judge_family(Family(parameterization="softplus"), make_target("exponential"))  # doctest: +SKIP
    """
    trained = train_family(family, target, progress=progress)
    longer = replace(family.longer(), widths=family.widths[-1:])
    curves = family_curves(family, trained, target, progress=progress, **search)
    widest = train_family(longer, target, start=trained[-1], progress=progress)
    curves += family_curves(longer, widest, target, progress=progress, **search)
    return judge_stable_approximation(curves)
