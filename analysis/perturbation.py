"""Perturbation errors E_m(beta) of a model, by ascent or by sampling ([IA] Def 3.4, paper.md 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from odernn import losses
from odernn.ensembles import member, replicate
from odernn.json_values import encode
from odernn.models import ContinuousModel, DiscreteModel, SequenceModel
from odernn.paths import Interpolation, Path, interpolate
from odernn.readouts import readout_along
from odernn.solvers import DivergedSolve, Exact, Solver, TorchDiffEq, automatic
from odernn.solvers.base import unchecked
from odernn.solvers.fused import Fused
from targets import Functional, Kernel, arguments, grids

from .linear_theory import KernelL1, linear_kernel
from .target_memory import TargetMemory

Array = NDArray[np.float64]
Search = Literal["ascent", "sample"]
Norm = Literal["spectral", "max"]
Target = Functional | Kernel | Tensor | Callable[[Tensor, Tensor], Tensor]

# Part of |H| that E_m may reach within the tolerance radius: above it the model says nothing of the target.
TOLERANCE = 0.5
# The radii of the published runs of trained models: 0 and 1e-3 2^{i/2}, i = 0 .. 20.
PUBLISHED_BETAS = (0.0, *(1e-3 * 2 ** (i / 2) for i in range(21)))
# Draws of the original protocol ([IA]), and restarts beside the slowest corner and the best draw.
DRAWS, RESTARTS = 30, 3
# Steps of one ascent, at most; most starts stop improving earlier.
STEPS = 20
# A step along which the error did not rise is halved so often before its start counts as finished.
_HALVINGS = 6
# Draws from which an ascent starts, beside the random restarts: the worst few seen at each beta.
_TOP_DRAWS = 2
# A start whose log-error rises by less than this in a step is finished.
_LEAST_GAIN = 1e-3
# Bytes that the states of one ensemble solve may take; larger ensembles go in chunks.
_MEMORY = 2**29
# Tensors of the size of the states that live at once: without gradients a solver's list, its stack and the readout's copy, with
# gradients what backpropagation keeps of the four stages of a rk4 step, or of a recursion (Exact, Fused).
_COPIES_VALUE, _COPIES_GRADIENT, _COPIES_RECURSION = 5, 30, 8
# rk4 is stable for |rate| step < 2.78; accurate steps are shorter.
_RK4_REACH = 1.5
# Steps per sample at most: a perturbation that needs more makes rates that the samples of x do not resolve anyway.
_MAX_STEPS_PER_SAMPLE = 8


# --- the result -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PerturbationCurve:
    """E_m(beta) of one model.

    Args:
        betas: (K,), increasing, >= 0; in units of the trainable parameters.
        errors: E_m(beta), (K,), inf where a perturbed model diverges; non-decreasing unless `running_maximum=False`.
        searched: what the search found at each beta alone, (K,). A search may find less in a larger ball than in a smaller one.
        initial: E_m(0).
        scale: the same error for the model that answers 0: |H| in the units of `errors`.
        power: 2 for squared errors, else 1: `relative` takes this root.
        hidden_size: m.
        horizon: T, the length of time over which the error is measured; may be inf.
        error, search, norm, blocks: as asked for; `blocks` holds the names of the perturbed parameters.
        block_choice: 'all', 'recurrent' or 'named'.
        worst_case: the worst parameters found within each beta as an ensemble (K,) of models: `member(worst_case, k)`.
        evaluations: models solved, those with gradients included.
        model: `SequenceModel.config()` of the unperturbed model.
        target_memory: M of the target, where it was measured: what `judge_stable_approximation` judges the horizon by.
    """

    betas: Array
    errors: Array
    searched: Array
    initial: float
    scale: float
    power: int
    hidden_size: int
    horizon: float
    error: str
    search: str
    norm: str
    blocks: tuple[str, ...]
    block_choice: str
    worst_case: SequenceModel
    evaluations: int
    model: dict[str, Any]
    target_memory: TargetMemory | None = None

    @property
    def lifted(self) -> NDArray[np.bool_]:
        """Where the search alone fell below a smaller beta's error, so that E_m stands there by monotonicity, (K,)."""
        return self.searched < self.errors

    @property
    def relative(self) -> Array:
        """E_m(beta) / |H|, (K,): (errors / scale)^(1 / power)."""
        return np.asarray((self.errors / self.scale) ** (1 / self.power))

    @property
    def relative_initial(self) -> float:
        """E_m(0) / |H|."""
        return float((self.initial / self.scale) ** (1 / self.power))

    def radius_bracket(self, tolerance: float = TOLERANCE) -> tuple[float, float]:
        """The betas next to r: the largest with E_m <= tolerance |H| (0 for none), the smallest with more (inf for none)."""
        if not self.relative_initial <= tolerance:
            return 0.0, 0.0
        above = np.flatnonzero(~((self.relative <= tolerance) | (self.betas == 0)))
        end = int(above[0]) if above.size else self.betas.size
        return float(self.betas[end - 1]) if end else 0.0, float(self.betas[end]) if above.size else math.inf

    def tolerance_radius(self, tolerance: float = TOLERANCE) -> float:
        """r = the largest beta with E_m(beta) <= tolerance |H|, log-linear between the betas.

        0 where already E_m(0) is larger. A bound where the betas do not enclose it, see `radius_bound`: the smallest beta > 0
        where E_m is larger there, the largest beta where it never is, the last finite one where E_m is inf at the next.
        """
        low, high = self.radius_bracket(tolerance)
        if low == 0:
            return high if math.isfinite(high) else 0.0
        if not math.isfinite(high):
            return low
        left, right = self.relative[np.searchsorted(self.betas, [low, high])]
        if not (left > 0 and math.isfinite(right)):
            return low
        return float(low * (high / low) ** (math.log(tolerance / left) / math.log(right / left)))

    def radius_bound(self, tolerance: float = TOLERANCE) -> str:
        """'<' where `tolerance_radius` is known from above only, '>' where from below only (or to the next beta), else ''."""
        low, high = self.radius_bracket(tolerance)
        if high == 0:
            return ""
        if low == 0 < high < math.inf:
            return "<"
        left, right = np.interp([low, high], self.betas, self.relative)
        return "" if high < math.inf and left > 0 and right < math.inf else ">"

    def radius_is_bound(self, tolerance: float = TOLERANCE) -> bool:
        """Whether E_m stays within the tolerance at every beta given, so that larger ones are needed."""
        return bool((self.relative <= tolerance).all() and self.relative_initial <= tolerance)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the worst-case weights, as JSON values (`odernn.json_values.encode`)."""
        values = {
            "hidden_size": self.hidden_size,
            "horizon": self.horizon,
            "error": self.error,
            "power": self.power,
            "scale": self.scale,
            "search": self.search,
            "norm": self.norm,
            "block_choice": self.block_choice,
            "blocks": list(self.blocks),
            "evaluations": self.evaluations,
            "initial_error": self.initial,
            "tolerance_radius": self.tolerance_radius(),
            "tolerance_radius_bound": self.radius_bound(),
            "betas": self.betas,
            "errors": self.errors,
            "searched": self.searched,
            "lifted": self.lifted,
            "model": self.model,
        }
        return encode(values)


# --- the function ---------------------------------------------------------------------------------------------------------------


def perturbation_error(
    model: SequenceModel,
    target: Target,
    x: Tensor | None,
    t: Tensor | None,
    betas: Sequence[float] | Array | Tensor,
    *,
    search: Search = "ascent",
    blocks: str | Sequence[str] = "all",
    norm: Norm = "spectral",
    error: str = "mse",
    draws: int = DRAWS,
    restarts: int = RESTARTS,
    steps: int = STEPS,
    seed: int = 0,
    solver: Solver | None = None,
    interpolation: Interpolation = "linear",
    horizon: float | None = None,
    running_maximum: bool = True,
) -> PerturbationCurve:
    """The perturbation error of a model, from below:

        E_m(beta) = sup { |H - H_hat(.; theta~)| : |theta~ - theta|_2 <= beta },    |theta|_2 = max over blocks of their norms,

    over the trainable parameters (the raw w where l = f(w)). The norm of a block is the spectral norm of a matrix (W, P, A, U,
    c), the 2-norm of a vector (b), and the max-norm of the raw entries of a diagonal (w, omega), which is the spectral norm of
    diag(w).

    search='ascent' maximises log E over the product of balls by the linear-maximisation oracle of its gradient G,

        theta~ <- theta + beta LMO(G),   LMO = V_1 V_2^T (matrix G = V_1 S V_2^T), G / |G| (vector), sign G (diagonal),

    halving the way to the new point where the error did not rise, from several starts: the slowest corner (W + beta I, or the raw
    weights moved towards slower decay), the opposite one, `restarts` random points of the sphere, the worst of `draws` random
    draws, and at the end the worst points found at the neighbouring betas. All betas and starts are one ensemble. A maximum
    over what was tried is a lower bound of the supremum.

    search='sample' is the original protocol: gaussian noise on every block, scaled to norm beta, the largest error of `draws`.

    A model that diverges counts as inf. Perturbed models start, at t[0], from the rest state of the unperturbed one: the
    perturbation sets in with the input. (Their own rest state -W^-1 b has a pole where W is singular, and is none that h(-inf)
    = 0 leads to where W is unstable; on [0, T] both say more about b than about memory.)

    Args:
        model: one model (no ensemble axis).
        target: H: a functional or any function (x, t) -> y, or its values y (batch, time, output) for this x.
        x: inputs, (batch, time, input); None for 'kernel_l1'.
        t: times, (time,).
        betas: radii >= 0, increasing.
        search: 'ascent' or 'sample'.
        blocks: 'all', 'recurrent' (raw weights of the recurrent matrices), or names of parameters ("W", "c", "layers.0.U").
        norm: 'spectral' for the balls above; 'max' for the max-norm of every block, as the original code has it.
        error: 'mse'; 'relative_l2' |y - y_hat| / |y|; 'time_weighted' (the mse of w_k y_k, paper.md 5); 'sup', the largest
            |y - y_hat| / |x|_inf over sequences and times; 'kernel_l1', the L1 distance of the kernels of a linear functional and
            a linear model, exact for all inputs at once.
        draws, restarts, steps, seed: of the search. The same seed gives the same curve.
        solver: for all ensembles. None: `Exact` where it applies, else rk4 (`Fused` for one layer) with steps short enough for
        the fastest perturbed rate. interpolation: of x between its samples, 'linear' or 'hold' (models in continuous time).
        horizon: for 'kernel_l1', T in place of t[-1]; may be inf. running_maximum: report max over beta' <= beta. E_m is
        non-decreasing by definition, a search need not be.

    Raises:
        ValueError: betas that are negative or not increasing; weights, inputs or shapes that do not fit; unknown names.
        DivergedSolve: the unperturbed model diverges.

    Source: [IA] Def 3.4; the oracle is the step of Frank and Wolfe (1956) at full length.
    """
    radii = _check_betas(betas)
    _check_choices(model, search, norm, error)
    draws = arguments.count("draws", draws, least=1 if search == "sample" else 0)
    restarts, steps = arguments.count("restarts", restarts, least=0), arguments.count("steps", steps)
    generator = arguments.generator(seed)
    objective = _objective(model, target, x, t, error, horizon, solver, interpolation, radii)
    ball = _Ball.build(model, blocks, norm)
    problem = _Problem(model, ball, objective)
    with torch.no_grad():
        initial = float(problem.values(*problem.centre()))
    best = _Best.at(problem, radii, initial)
    positive = torch.from_numpy(np.flatnonzero(radii > 0))
    if len(positive):
        top = _sample(problem, best, positive, draws, generator)
        if search == "ascent":
            _climb_from_starts(problem, best, positive, top, restarts, steps, generator)
    return _curve(problem, best, initial, search, blocks, error, running_maximum)


def _check_betas(betas: Sequence[float] | Array | Tensor) -> Array:
    radii = np.atleast_1d(arguments.real_tensor("betas", betas, finite=False).detach().double().cpu().numpy())
    if radii.ndim != 1 or radii.size == 0:
        raise ValueError(f"betas must be a list of radii, got shape {radii.shape}")
    if not (np.isfinite(radii) & (radii >= 0)).all():
        bad = radii[~(np.isfinite(radii) & (radii >= 0))][0]
        raise ValueError(f"betas must be finite and >= 0, got {bad:g}: they are radii of balls of parameters")
    if (np.diff(radii) <= 0).any():
        k = int(np.argmax(np.diff(radii) <= 0))
        raise ValueError(f"betas must increase, got {radii[k]:g} before {radii[k + 1]:g}: sort them and drop repetitions")
    return radii


def _check_choices(model: SequenceModel, search: str, norm: str, error: str) -> None:
    arguments.choice("search", search, ("ascent", "sample"))
    arguments.choice("norm", norm, ("spectral", "max"))
    arguments.choice("error", error, ERRORS)
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if model.ensemble:
        raise ValueError(f"perturbation_error takes one model, got an ensemble {model.ensemble}: take its members one by one")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"weight {name} holds {int((~torch.isfinite(weight)).sum())} NaN or infinite entries: train again")


# --- errors ---------------------------------------------------------------------------------------------------------------------


def _sup(y: Tensor, target: Tensor, amplitude: Tensor) -> Tensor:
    """max over batch and time of |y - target|_2 / |x|_inf, one value per ensemble member; amplitude |x|_inf is (batch, 1)."""
    return (torch.linalg.vector_norm(y - target, dim=-1) / amplitude).amax((-2, -1))


# Error names, each with the power that `PerturbationCurve.relative` takes the root of.
ERRORS: dict[str, int] = {"mse": 2, "relative_l2": 1, "time_weighted": 2, "sup": 1, "kernel_l1": 1}


@dataclass(frozen=True)
class _Objective:
    """E of an ensemble, (n,), with what the search must know of it."""

    evaluate: Callable[[SequenceModel], Tensor]
    scale: float
    horizon: float
    error: str
    # Bytes of one member's states.
    member_bytes: int
    lean: bool

    def chunk(self, gradient: bool) -> int:
        """Members per ensemble solve."""
        copies = (_COPIES_RECURSION if self.lean else _COPIES_GRADIENT) if gradient else _COPIES_VALUE
        return max(1, _MEMORY // (copies * self.member_bytes))


def _objective(
    model: SequenceModel,
    target: Target,
    x: Tensor | None,
    t: Tensor | None,
    error: str,
    horizon: float | None,
    solver: Solver | None,
    interpolation: Interpolation,
    radii: Array,
) -> _Objective:
    if error == "kernel_l1":
        kernel = linear_kernel(model, target)
        if horizon is None:
            if t is None:
                raise ValueError("error 'kernel_l1' needs a horizon: give t, or horizon=T (math.inf for all times)")
            horizon = float(grids.tensor(t, "t")[-1])
        distance = KernelL1.build(kernel, horizon)
        dense = model.config()["recurrence"] != "diagonal"
        entries = distance.grid.times.numel() * model.hidden_size * (model.hidden_size if dense else 1)
        return _Objective(distance, distance.scale, horizon, error, 8 * entries, lean=True)
    if x is None or t is None:
        raise ValueError(f"error {error!r} is measured on inputs: give x (batch, time, input) and t (time,), or take 'kernel_l1'")
    if horizon is not None:
        raise ValueError(f"horizon is for error 'kernel_l1', got horizon={horizon} for {error!r}: it is t[-1] - t[0] there")
    with torch.no_grad():
        # Through the public call once, so that whatever does not fit is reported in the user's terms.
        options: dict[str, Any] = {}
        if isinstance(model, ContinuousModel):  # a default solver's accuracy does not matter here: errors are solved otherwise
            options = {"solver": solver or unchecked(automatic(model.field())), "interpolation": interpolation}
        unperturbed = model(x, t, **options)
        y = target if isinstance(target, Tensor) else _call(target, x, t)
    if y.shape != unperturbed.shape:
        raise ValueError(
            f"the target has shape {tuple(y.shape)}, the model's output {tuple(unperturbed.shape)} (batch, time, output): "
            "make them agree"
        )
    if not torch.isfinite(y).all():
        raise ValueError("the target holds NaN or infinite values")
    y = y.detach().to(unperturbed)
    amplitude = x.detach().abs().amax((-2, -1)).unsqueeze(-1)
    if error == "sup" and not (amplitude > 0).all():
        raise ValueError("error 'sup' divides by |x|_inf, got a sequence that is 0 throughout: leave it out")
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mse": losses.mse,
        "relative_l2": losses.relative_l2,
        "time_weighted": losses.time_weighted_mse,
        "sup": lambda y_hat, y: _sup(y_hat, y, amplitude),
    }
    measure = measures[error]
    scale = float(measure(torch.zeros_like(y), y))
    if not 0 < scale < math.inf:
        raise ValueError("the target answers 0 to every input, so that no error can be told from it: give other inputs")
    with torch.no_grad():
        h0 = model.rest_state()
    t = grids.tensor(t, "t")
    path = interpolate(t, x, interpolation)
    if solver is None and isinstance(model, ContinuousModel):
        solver = _default_solver(model, t, float(radii[-1]))

    def evaluate(ensemble: SequenceModel) -> Tensor:
        return measure(_respond(ensemble, h0, path, x, t, solver), y)

    states = x.shape[-3] * x.shape[-2] * model.hidden_size * model.num_layers
    return _Objective(
        evaluate, scale, float(t[-1] - t[0]), error, states * x.element_size(), lean=isinstance(solver, (Exact, Fused))
    )


def _call(target: Any, x: Tensor, t: Tensor) -> Tensor:
    if not callable(target) or isinstance(target, Kernel | type):
        raise ValueError(
            f"the target is a {type(target).__name__}, expected a functional, a function (x, t) -> y, or the values y; wrap a "
            "kernel in ConvolutionalFunctional"
        )
    y = target(x, t)
    if not isinstance(y, Tensor):
        raise ValueError(f"the target gave a {type(y).__name__}, expected a tensor y (batch, time, output)")
    return y


def _respond(ensemble: SequenceModel, h0: Tensor, path: Path, x: Tensor, t: Tensor, solver: Solver | None) -> Tensor:
    """y of every member from the state h0, (n, batch, time, output), with whatever a diverged member came to (inf or nan)."""
    if isinstance(ensemble, DiscreteModel):
        return ensemble.respond(x, t, h0, check=False).y
    # The field is made once, because P = expm(A - A^T) is not free.
    field = ensemble.field()
    assert solver is not None
    start = h0.expand(*ensemble.ensemble, x.shape[-3], field.size)
    return readout_along(field, solver.solve(field, path, t, start).h)


def _default_solver(model: ContinuousModel, t: Tensor, radius: float) -> Solver:
    """`Exact` where it applies, else rk4 with steps that resolve the fastest rate in the ball of that radius."""
    if Exact.supports(model.field()):
        return Exact()
    rates = []
    with torch.no_grad():
        for sign in (-1.0, 1.0):
            extreme = replicate(model, 1)
            corner = _slowest_corner(model, "spectral")
            for name, weight in extreme.named_parameters():
                weight.add_(sign * radius * corner[name])
            for layer in extreme.field().layers:
                rates.append(float(torch.linalg.matrix_norm(layer.W.to_dense(), ord=2).max()))
    step = float(t.diff().max())
    wanted = max(1, math.ceil(step * max(rates) / _RK4_REACH)) if all(map(math.isfinite, rates)) else _MAX_STEPS_PER_SAMPLE
    pieces = min(wanted, _MAX_STEPS_PER_SAMPLE)
    checked = wanted > pieces or not all(map(math.isfinite, rates))  # steps within reach of every rate need no second look
    if Fused.supports(model.field()):
        return Fused("rk4", substeps=pieces, check=checked)
    return TorchDiffEq("rk4", adjoint=False, step_size=None if pieces == 1 else step / pieces, check=checked)


# --- balls of parameters --------------------------------------------------------------------------------------------------------

_Point = dict[str, Tensor]  # raw parameters, or directions in them, by name; a leading axis for members
_DIAGONALS = ("w", "omega")


@dataclass(frozen=True)
class _Ball:
    """The unit ball of the perturbed parameters: {d : |d_block| <= 1 for every block}.

    Args:
        kinds: parameter name -> 'matrix' (spectral norm), 'vector' (2-norm) or 'entries' (max-norm).
        shapes: parameter name -> shape.
        choice: 'all', 'recurrent' or 'named'.
        norm_name: 'spectral' or 'max', as asked for.
    """

    kinds: dict[str, str]
    shapes: dict[str, torch.Size]
    choice: str
    norm_name: str

    @staticmethod
    def build(model: SequenceModel, blocks: str | Sequence[str], norm: str) -> _Ball:
        parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        choice = blocks if isinstance(blocks, str) and blocks in ("all", "recurrent") else "named"
        if choice == "all":
            names = list(parameters)
        elif choice == "recurrent":
            names = [name for name in parameters if ".recurrence." in name]
        else:
            asked = list(blocks) if isinstance(blocks, Sequence) and not isinstance(blocks, str) else [blocks]
            matches = {block: [name for name in parameters if block in (name, name.split(".")[-1])] for block in asked}
            missing = [block for block, found in matches.items() if not found]
            if missing or not asked:
                unknown = ", ".join(map(repr, missing)) or repr(blocks)
                raise ValueError(f"unknown blocks {unknown}: give 'all', 'recurrent' or a list from {', '.join(parameters)}")
            names = [name for name in parameters if any(name in found for found in matches.values())]
        if not names:
            raise ValueError(f"no trainable parameter in blocks {blocks!r}: there is nothing to perturb")
        kinds = {}
        for name in names:
            last = name.split(".")[-1]
            matrix = parameters[name].ndim == 2
            kinds[name] = "entries" if norm == "max" or last in _DIAGONALS else "matrix" if matrix else "vector"
        return _Ball(kinds, {name: parameters[name].shape for name in names}, choice, norm)

    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> _Point:
        """n points of the unit sphere of every block: gaussian noise over its norm."""
        point = {}
        for name, kind in self.kinds.items():
            noise = torch.randn(n, *self.shapes[name], generator=generator, dtype=torch.float64).to(like)
            norm = _norm(kind, noise).clamp_min(torch.finfo(noise.dtype).tiny)
            point[name] = noise / _column(norm, noise)
        return point

    def maximizer(self, gradient: _Point) -> _Point:
        """argmax of <gradient, d> over the unit ball, block by block."""
        return {name: _maximizer(kind, gradient[name]) for name, kind in self.kinds.items()}


def _norm(kind: str, block: Tensor) -> Tensor:
    if kind == "matrix":
        return torch.linalg.matrix_norm(block, ord=2)
    flat = block.flatten(1)
    return flat.abs().amax(-1) if kind == "entries" else torch.linalg.vector_norm(flat, dim=-1)


def _maximizer(kind: str, gradient: Tensor) -> Tensor:
    # A diverged member's gradient is nan; its start is finished, and must only not stop the SVD of the others.
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    if kind == "entries":
        return gradient.sign()
    if kind == "vector" or 1 in gradient.shape[-2:]:
        norm = torch.linalg.vector_norm(gradient.flatten(1), dim=-1).clamp_min(torch.finfo(gradient.dtype).tiny)
        return gradient / _column(norm, gradient)
    # Scaled to order one: an exploding model's gradient overflows in the SVD.
    largest = gradient.flatten(1).abs().amax(-1).clamp_min(torch.finfo(gradient.dtype).tiny)
    left, _, right = torch.linalg.svd(gradient / _column(largest, gradient), full_matrices=False)
    return left @ right


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(n,) with axes of length one behind it."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _slowest_corner(model: SequenceModel, norm: str) -> _Point:
    """The point of the unit ball that slows the decay of every mode and amplifies input and readout.

    W + I for a dense W (under the max-norm the sign of the slowest direction's projector), the sign of f' for raw weights of
    eigenvalues, P shrunk towards 0 where it is free; U and c scaled up; 0 where slowing has no meaning (b, omega, A).
    """
    corner = {}
    for name, weight in model.named_parameters():
        w, last = weight.detach(), name.split(".")[-1]
        if last == "W":
            if norm == "spectral":
                corner[name] = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
            else:
                slowest = torch.linalg.eigh(w + w.mT).eigenvectors[:, -1]
                corner[name] = torch.outer(slowest, slowest).sign()
        elif last == "w":
            corner[name] = model.parameterization.derivative(w).sign()
        elif last == "P":
            corner[name] = -(_maximizer("matrix", w.unsqueeze(0)).squeeze(0) if norm == "spectral" else w.sign())
        elif last in ("U", "c"):
            kind = "matrix" if norm == "spectral" else "entries"
            corner[name] = w / _norm(kind, w.unsqueeze(0)).clamp_min(torch.finfo(w.dtype).tiny)
        else:
            corner[name] = torch.zeros_like(w)
    return corner


# --- the search -----------------------------------------------------------------------------------------------------------------


class _Problem:
    """E at theta + beta d, for ensembles of directions d in the unit ball and radii beta."""

    def __init__(self, model: SequenceModel, ball: _Ball, objective: _Objective) -> None:
        self.model, self.ball, self.objective = model, ball, objective
        self.evaluations = 0
        self._ensemble: SequenceModel | None = None

    def centre(self) -> tuple[_Point, Tensor]:
        """One member at theta itself."""
        return {name: self.model.c.new_zeros(1, *shape) for name, shape in self.ball.shapes.items()}, self.model.c.new_zeros(1)

    def corner(self) -> _Point:
        """The slowest corner, one member."""
        corner = _slowest_corner(self.model, self.ball.norm_name)
        return {name: corner[name].unsqueeze(0) for name in self.ball.kinds}

    def values(self, directions: _Point, radii: Tensor) -> Tensor:
        """E, (n,), inf where it diverges; without gradients."""
        with torch.no_grad():
            parts = [self._solve(part, beta) for part, beta in self._chunks(directions, radii, gradient=False)]
        return torch.cat(parts)

    def ascend(self, directions: _Point, radii: Tensor) -> tuple[Tensor, _Point]:
        """E, (n,), and the maximiser over the unit ball of the gradient of log E, for every member."""
        values, oracles = [], []
        for part, beta in self._chunks(directions, radii, gradient=True):
            value, oracle = self._solve_with_gradient(part, beta)
            values.append(value)
            oracles.append(oracle)
        return torch.cat(values), _concatenate(oracles)

    def perturbed(self, directions: _Point, radii: Tensor) -> SequenceModel:
        """The ensemble of models at theta + beta d."""
        n = len(radii)
        if self._ensemble is None or self._ensemble.ensemble != (n,):
            self._ensemble = replicate(self.model, n)
            for name, weight in self._ensemble.named_parameters():
                weight.requires_grad_(name in self.ball.kinds)
        ensemble, theta = self._ensemble, dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in ensemble.named_parameters():
                if name in directions:
                    weight.copy_(theta[name] + _column(radii, weight) * directions[name])
        return ensemble

    def _chunks(self, directions: _Point, radii: Tensor, gradient: bool) -> list[tuple[_Point, Tensor]]:
        n, most = len(radii), self.objective.chunk(gradient)
        # Even chunks, so that the ensemble is rebuilt as seldom as can be.
        size = math.ceil(n / math.ceil(n / most))
        return [(_take(directions, slice(k, k + size)), radii[k : k + size]) for k in range(0, n, size)]

    def _solve(self, directions: _Point, radii: Tensor) -> Tensor:
        self.evaluations += len(radii)
        try:
            error = self.objective.evaluate(self.perturbed(directions, radii))
        except DivergedSolve:
            # An adaptive solver gives the whole ensemble up for one member: find it by halves.
            if len(radii) == 1:
                return torch.full_like(radii, math.inf)
            half = len(radii) // 2
            self.evaluations -= len(radii)
            return torch.cat([self._solve(_take(directions, part), radii[part]) for part in (slice(half), slice(half, None))])
        return torch.where(torch.isfinite(error), error, math.inf)

    def _solve_with_gradient(self, directions: _Point, radii: Tensor) -> tuple[Tensor, _Point]:
        self.evaluations += len(radii)
        ensemble = self.perturbed(directions, radii)
        weights = {name: weight for name, weight in ensemble.named_parameters() if name in self.ball.kinds}
        try:
            with torch.enable_grad():
                error = self.objective.evaluate(ensemble)
                tiny = torch.finfo(error.dtype).tiny
                # Members do not touch one another, so the gradient of the sum holds each member's own.
                gradients = torch.autograd.grad(error.clamp_min(tiny).log().sum(), list(weights.values()), allow_unused=True)
        except DivergedSolve:
            if len(radii) == 1:
                return torch.full_like(radii, math.inf), {name: torch.zeros_like(part) for name, part in directions.items()}
            half = len(radii) // 2
            self.evaluations -= len(radii)
            parts = [self._solve_with_gradient(_take(directions, part), radii[part]) for part in (slice(half), slice(half, None))]
            return torch.cat([value for value, _ in parts]), _concatenate([oracle for _, oracle in parts])
        named = {
            name: torch.zeros_like(weight) if gradient is None else gradient
            for (name, weight), gradient in zip(weights.items(), gradients)
        }
        error = error.detach()
        return torch.where(torch.isfinite(error), error, math.inf), self.ball.maximizer(named)


@dataclass
class _Best:
    """The worst case found so far for each beta.

    Args:
        radii: (K,).
        values: (K,).
        directions: (K, ...) in the unit ball.
    """

    radii: Tensor
    values: Tensor
    directions: _Point

    @staticmethod
    def at(problem: _Problem, radii: Array, initial: float) -> _Best:
        centre, _ = problem.centre()
        like = problem.model.c
        values = torch.full((radii.size,), initial, dtype=like.dtype, device=like.device)
        directions = {name: part.repeat(radii.size, *(1,) * (part.ndim - 1)) for name, part in centre.items()}
        return _Best(torch.from_numpy(radii).to(like), values, directions)

    def offer(self, index: Tensor, values: Tensor, directions: _Point) -> None:
        """Takes up candidates, (n,), for the betas of that index."""
        for k in index.unique().tolist():
            candidates = torch.nonzero(index == k).squeeze(-1)
            top = candidates[values[candidates].argmax()]
            if values[top] > self.values[k]:
                self.values[k] = values[top]
                for name, part in self.directions.items():
                    part[k] = directions[name][top]


def _sample(
    problem: _Problem, best: _Best, positive: Tensor, draws: int, generator: torch.Generator
) -> list[tuple[Tensor, _Point]]:
    """Offers `draws` random points of the sphere at every beta > 0; the worst few of each, with the index of their beta."""
    if draws == 0:
        return []
    top = []
    index = positive.repeat_interleave(draws)
    most = max(1, problem.objective.chunk(gradient=False) // draws) * draws
    # Whole betas at a time, because the noise of all of them at once may not fit, but drawn one by one: the numbers must not
    # depend on how many fit.
    for part in index.split(most):
        directions = _concatenate([problem.ball.draw(draws, problem.model.c, generator) for _ in range(len(part) // draws)])
        values = problem.values(directions, best.radii[part])
        best.offer(part, values, directions)
        ranks = values.reshape(-1, draws).argsort(dim=-1, descending=True)[:, :_TOP_DRAWS]
        chosen = (ranks + draws * torch.arange(len(ranks), device=ranks.device).unsqueeze(-1)).flatten()
        top.append((part[chosen.cpu()], _take(directions, chosen)))
    return top


def _climb_from_starts(
    problem: _Problem,
    best: _Best,
    positive: Tensor,
    top: list[tuple[Tensor, _Point]],
    restarts: int,
    steps: int,
    generator: torch.Generator,
) -> None:
    count = len(positive)
    corner = {name: part.expand(count, *part.shape[1:]) for name, part in problem.corner().items()}
    restart = problem.ball.draw(count * restarts, problem.model.c, generator)
    # A fit that hedges against its slowest corner may be worst at the fastest one.
    opposite = {name: -part for name, part in corner.items()}
    indices, starts = [positive, positive, positive.repeat(restarts)], [corner, opposite, restart]
    for index, directions in top:
        indices.append(index)
        starts.append(directions)
    _climb(problem, best, torch.cat(indices), _concatenate(starts), steps)
    if count > 1:
        # What is worst in one ball is a good start in the next: the same direction at the next radius.
        neighbours = [_take(best.directions, positive[:-1]), _take(best.directions, positive[1:])]
        _climb(problem, best, torch.cat([positive[1:], positive[:-1]]), _concatenate(neighbours), steps)


def _climb(problem: _Problem, best: _Best, index: Tensor, directions: _Point, steps: int) -> None:
    """Ascends from every start until it stops rising, and offers the points seen.

    Args:
        index: the beta of each start, (n,).
        directions: (n, ...) in the unit ball.
    """
    values, oracles = problem.ascend(directions, best.radii[index])
    best.offer(index, values, directions)
    fraction = torch.ones_like(values)
    for _ in range(steps):
        # A start that diverged has its answer, and so has every other start at that beta.
        going = (fraction > 2.0**-_HALVINGS) & torch.isfinite(best.values[index])
        if not going.any():
            return
        index, values, fraction = index[going], values[going], fraction[going]
        directions, oracles = _take(directions, going), _take(oracles, going)
        # Convex combinations stay in the ball.
        trial = {name: part + _column(fraction, part) * (oracles[name] - part) for name, part in directions.items()}
        trial_values, trial_oracles = problem.ascend(trial, best.radii[index])
        best.offer(index, trial_values, trial)
        risen = trial_values > values
        small = trial_values < values * (1 + _LEAST_GAIN)
        directions, oracles = _where(risen, trial, directions), _where(risen, trial_oracles, oracles)
        # After a rise the next step is full again, unless the rise was too small to go on.
        fraction = torch.where(risen, torch.where(small, torch.zeros_like(fraction), torch.ones_like(fraction)), fraction / 2)
        values = torch.where(risen, trial_values, values)


def _curve(
    problem: _Problem,
    best: _Best,
    initial: float,
    search: str,
    blocks: str | Sequence[str],
    error: str,
    running_maximum: bool,
) -> PerturbationCurve:
    model, objective = problem.model, problem.objective
    searched = best.values.double().cpu().numpy()
    errors, directions, radii = searched, best.directions, best.radii
    if running_maximum:
        errors = np.maximum.accumulate(searched)
        source = torch.from_numpy(np.maximum.accumulate(np.where(searched >= errors, np.arange(searched.size), 0)))
        # The worst case within beta may lie in a smaller ball.
        directions, radii = _take(directions, source), radii[source]
    worst = member(replicate(problem.perturbed(directions, radii), 1), 0)
    for weight in worst.parameters():
        weight.requires_grad_(False)
    return PerturbationCurve(
        betas=best.radii.double().cpu().numpy(),
        errors=errors,
        searched=searched,
        initial=initial,
        scale=objective.scale,
        power=ERRORS[error],
        hidden_size=model.hidden_size,
        horizon=objective.horizon,
        error=error,
        search=search,
        norm=problem.ball.norm_name,
        blocks=tuple(problem.ball.kinds),
        block_choice=problem.ball.choice,
        worst_case=worst,
        evaluations=problem.evaluations,
        model=model.config(),
    )


def _take(point: _Point, index: Tensor | slice) -> _Point:
    return {name: part[index] for name, part in point.items()}


def _where(condition: Tensor, yes: _Point, no: _Point) -> _Point:
    return {name: torch.where(_column(condition, part), part, no[name]) for name, part in yes.items()}


def _concatenate(points: list[_Point]) -> _Point:
    return {name: torch.cat([point[name] for point in points]) for name in points[0]}
