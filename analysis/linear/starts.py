"""The best linear models of a family's structure: where its training starts, and what its error is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from odernn import losses
from odernn.ensembles import member, stack
from odernn.models import ContinuousRNN, SequenceModel
from odernn.solvers import DivergedSolve, Solver
from odernn.training import Data, LeastSquares, Trainer, TrainingConfig
from odernn.warm_start import place
from targets import ConvolutionalFunctional, Functional, Kernel

from .fits import fit_kernel

# Where real rates leave more of the target than this, it oscillates, and conjugate pairs are tried.
_OSCILLATES = 1e-2
# Random starts and steps of the fit of pairs.
_PAIR_STARTS, _PAIR_STEPS = 2, 15
# Pairs beside real rates begin with frequencies of this part of the rates: at 0 no first derivative leads away from them.
_TURN = 0.1
# Part of the fastest rate of a parameterisation that has one.
_INSIDE = 1 - 1e-6
# Scales of a placed model's states that are tried, more where the last of these is the best, and by how much of its smallest
# objective the largest of them may be worse: smaller ones cost a larger readout and hardly gain. Other inputs are somewhat
# larger: MARGIN below that.
_SCALES = tuple(2.0**-k for k in range(11))
_SMALLEST_SCALE = 2.0**-40
_WORSE, _MARGIN = 1.1, 0.5
# Of the fit of pairs, at least: without any, it ends in large amplitudes that nearly cancel.
_LEAST_DECAY = 1e-12


def linear_fits(
    model: SequenceModel, target: Functional, data: Data, *, weight_decay: float = 0.0, seed: int = 0
) -> list[ContinuousRNN]:
    """The linear models closest to a target among those of a model's width, recurrence and parameterisation, best first.

    Of a recurrence that contains real rates it is the one of `fit_kernel`; of one that contains conjugate pairs, where real rates
    do not come within 1 %, one of pairs trained by Levenberg-Marquardt. Empty for a target without a scalar kernel, and for a
    recurrence that contains neither.

    Args:
        model: one layer in continuous time, of one input and one output.
        data: of the target; its validation set says which is better.
        weight_decay: of the pairs' training, and 1e-12 where it is less.
        seed: of the random starts.
    """
    kernel = target.kernel if isinstance(target, ConvolutionalFunctional) else None
    if kernel is None or kernel.size != 1 or model.output_size != 1 or model.num_layers != 1 or model.is_map:
        return []
    fits, horizon = [], float(data.t[-1] - data.t[0])
    linear = _alike(model)
    if _takes(linear, torch.diag(-torch.linspace(0.1, 0.2, model.hidden_size, dtype=torch.float64))):
        fits.append(fit_kernel(kernel, model.hidden_size, horizon, model.parameterization, seed=seed))
    pairs = torch.kron(torch.eye(model.hidden_size // 2), torch.tensor([[-0.1, -1.0], [1.0, -0.1]])).double()
    if (not fits or linear_error(fits[0], data) > _OSCILLATES) and model.hidden_size % 2 == 0 and _takes(linear, pairs):
        fits += _fit_pairs(model, kernel, data, weight_decay, seed)
    return sorted(map(_inside, fits), key=lambda fit: linear_error(fit, data))


def linear_error(fit: SequenceModel, data: Data, solver: Solver | None = None) -> float:
    """Relative L2 error of a linear model, or of one made from it, on the validation set."""
    with torch.no_grad():
        solver = None if solver is None else solver.unchecked()
        held = data.validation
        return float(losses.relative_l2(fit(held.x, held.t, solver=solver), held.y, held.mask))


def placed(
    fit: SequenceModel, model: SequenceModel, data: Data, solver: Solver | None, *, weight_decay: float
) -> tuple[SequenceModel, float]:
    """A linear model in the linear range of `model`'s activation (`odernn.warm_start.place`), with the largest scale that is as
    good as any, and the objective of its training there.

    Raises:
        ValueError: as `place`.
    """
    scales = [1.0] if model.activation.linear else list(_SCALES)

    def costs_of(scales: Sequence[float]) -> torch.Tensor:
        candidates = []
        for scale in scales:
            place(fit, model, scale)
            candidates.append(member(stack([model]), 0))
        return objective(stack(candidates), data, solver, weight_decay=weight_decay)

    costs = costs_of(scales)
    while not model.activation.linear and costs.argmin() == len(scales) - 1 and scales[-1] > _SMALLEST_SCALE:
        finer = [scales[-1] * scale for scale in _SCALES[1:]]
        scales, costs = scales + finer, torch.cat([costs, costs_of(finer)])
    largest = scales[int((costs <= _WORSE * costs.min()).int().argmax())]
    place(fit, model, largest if model.activation.linear else _MARGIN * largest)
    return model, float(objective(model, data, solver, weight_decay=weight_decay))


def objective(model: SequenceModel, data: Data, solver: Solver | None, *, weight_decay: float) -> torch.Tensor:
    """The objective of a training by the mean square error with the best readout, one value per member."""
    problem = LeastSquares(
        model, data, losses.mse, solver=solver, interpolation="linear", weight_decay=weight_decay, penalty=None
    )
    return problem.evaluate().cost


def _alike(model: SequenceModel, recurrence: str | None = None, seed: int = 0) -> ContinuousRNN:
    """A linear model of the same width and parameterisation."""
    recurrence = recurrence or model.layer_weights[0].recurrence.name
    arguments = (1, model.hidden_size, 1, "linear", recurrence, model.parameterization)
    return ContinuousRNN(*arguments, bias=False, seed=seed, dtype=torch.float64)


def _inside(fit: ContinuousRNN) -> ContinuousRNN:
    """The fit, with eigenvalues that round to the end of their parameterisation's range moved inside: no raw weight has that."""
    w, (end, _) = cast(torch.Tensor, fit.layer_weights[0].recurrence.w), fit.parameterization.range
    with torch.no_grad():
        value = fit.parameterization(w)
        beyond = value <= end
        w[beyond] = fit.parameterization.inverse(value[beyond] * _INSIDE)
    return fit


def _takes(linear: ContinuousRNN, W: torch.Tensor) -> bool:
    try:
        linear.set_matrix(W)
    except ValueError:
        return False
    return True


def _fit_pairs(model: SequenceModel, kernel: Kernel, data: Data, weight_decay: float, seed: int) -> list[ContinuousRNN]:
    """Conjugate pairs trained by Levenberg-Marquardt, the best of random starts and of one beside real rates, which are one
    ensemble; and the real rates themselves."""
    starts = [_alike(model, "complex", seed + start) for start in range(_PAIR_STARTS + 2)]
    real = fit_kernel(kernel, model.hidden_size // 2, float(data.t[-1] - data.t[0]), model.parameterization, seed=seed)
    for start, turn, second in ((starts[0], _TURN, 1.0), (starts[-1], 0.0, 0.0)):
        of_real, (layer,) = real.field(), start.layer_weights
        rates = of_real.layers[0].W.to_dense().detach()
        start.set_matrix(torch.kron(rates, torch.tensor([[1.0, -turn], [turn, 1.0]], dtype=torch.float64)))
        each = torch.tensor([[1.0], [second]], dtype=torch.float64)
        with torch.no_grad():
            layer.U.copy_(torch.kron(real.layer_weights[0].U, each))
            start.c.copy_(torch.kron(real.c, each.mT))
    fits = stack(starts[:-1])
    config = TrainingConfig(optimizer="lm", epochs=_PAIR_STEPS, weight_decay=max(weight_decay, _LEAST_DECAY))
    try:
        Trainer(fits, data, config).run(progress=False)
    except DivergedSolve:
        return starts[-1:]
    with torch.no_grad():
        best = losses.mse(fits(data.x, data.t), data.y, data.mask).nan_to_num(nan=torch.inf).argmin()
    return [cast(ContinuousRNN, member(fits, int(best))), starts[-1]]
