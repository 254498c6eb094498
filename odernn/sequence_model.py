"""The base of all models: weights, readout, spectrum, response."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from targets import arguments, grids

from . import activations, parameterizations
from .activations import Activation
from .citations import record
from .fields import Form, VectorField
from .layer_weights import LayerWeights
from .norms import EUCLIDEAN
from .parameterizations import Parameterization, Time
from .paths import Interpolation, Path, interpolate
from .raw_weights import BIAS, INPUT, READOUT, RawWeight, WeightKind
from .readouts import readout_along, readout_by_members
from .short_repr import short_repr
from .solvers import Solution, Solver, automatic, named, operators
from .solvers.base import check_finite, check_start


@dataclass(frozen=True)
class Response:
    """The response of a model to an input: y (*ensemble, batch, time, output) and the states behind it."""

    y: Tensor
    solution: Solution

    __repr__ = short_repr


_OTHER = RawWeight(EUCLIDEAN, kind="input")
InitialState = Tensor | Literal["rest", "zero"] | None


class SequenceModel(nn.Module, ABC):
    """Base of all models: weights, readout, spectrum, response. Arrays are (..., batch, time, channel).

    A new kind of model is a class on top of `ContinuousModel` (dh/dt = F) or `DiscreteModel` (which adds `state_equation`) with

        name  for configurations, where `MODELS` lists the class
        form  of the vector field F, see `odernn.fields`
        time  "continuous" where F = 0 at rest, "discrete" where F = h: W is parameterised accordingly

    Attributes:
        is_map: whether the state moves once a sample; otherwise a solver integrates it.
        settings: names of the attributes that say how a model computes, and not which it is.

    Args:
        input_size: d, entries of x.
        hidden_size: m, entries of the state of one layer.
        output_size: entries of y.
        activation: a name from `odernn.activations.ACTIVATIONS`, or an `Activation` of your own.
        recurrence: one of `odernn.recurrences.RECURRENCES`; how to add your own stands there.
        parameterization: a name from `odernn.parameterizations.PARAMETERIZATIONS` or an object of these.
        num_layers: layers, each fed by the one below: its state (rnn), or sigma of it (ssm).
        bias: whether the layers have b (which starts at 0).
        ensemble: leading axes carried by every weight: that many models at once.
        seed: an integer, or a generator on the CPU, for the initial weights; None for torch's own generator, as in torch.nn:
            every model then has other weights, and `torch.manual_seed` repeats them.
        dtype, device: of the weights. They are drawn in float64 on the CPU, so a seed means the same model everywhere.

    Raises:
        ValueError: sizes below 1, unknown names (lists the choices), or a combination without meaning.

    Example:
        >>> import torch
        >>> from odernn import ContinuousRNN
        >>> model = ContinuousRNN(1, 16, 1, "tanh", "diagonal", "softplus", seed=0, dtype=torch.float64)
        >>> t, x = torch.linspace(0, 10, 101).double(), torch.zeros(8, 101, 1).double()
        >>> y = model(x, t)  # (8, 101, 1)
        >>> y, h = model(x, t, return_state=True)  # to go on from there: model(x_later, t_later, h0=h)
    """

    name: ClassVar[str]
    form: ClassVar[Form]
    time: ClassVar[Time]
    is_map: ClassVar[bool]
    settings: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "Args:" not in (cls.__doc__ or ""):  # so that help(ContinuousRNN) shows the arguments
            arguments_of_all = inspect.cleandoc(SequenceModel.__doc__ or "").partition("Args:")[2]
            cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nArgs:{arguments_of_all}"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        activation: str | Activation = "tanh",
        recurrence: str = "dense",
        parameterization: str | Parameterization = "direct",
        *,
        num_layers: int = 1,
        bias: bool = True,
        ensemble: Sequence[int] = (),
        seed: int | torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.input_size = arguments.count("input_size", input_size)
        self.hidden_size = arguments.count("hidden_size", hidden_size)
        self.output_size = arguments.count("output_size", output_size)
        self.num_layers = arguments.count("num_layers", num_layers)
        if not isinstance(parameterization, Parameterization):
            parameterization = parameterizations.get(parameterization, self.time)
        if parameterization.time != self.time:
            raise ValueError(
                f"{type(self).__name__} needs a parameterization in {self.time} time, got one in {parameterization.time} time"
            )
        self.activation = activations.get(activation)
        self.parameterization = parameterization
        self.ensemble = arguments.counts("ensemble", ensemble)
        dtype = dtype or torch.get_default_dtype()
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype is {dtype!r}, expected a real floating-point type: give torch.float64")
        generator = None if seed is None else arguments.generator(seed)
        self.layers = nn.ModuleList(
            LayerWeights(
                input_size if index == 0 else hidden_size,
                hidden_size,
                recurrence,
                parameterization,
                bias,
                self.ensemble,
                generator,
            )
            for index in range(num_layers)
        )
        c = torch.randn(*self.ensemble, output_size, hidden_size, generator=generator, dtype=torch.float64)
        self.c = nn.Parameter(c / math.sqrt(hidden_size))
        self.to(device=device, dtype=dtype)
        record(type(self), type(parameterization), type(self.layer_weights[0].recurrence))

    def config(self) -> dict[str, Any]:
        """The description from which `odernn.models.build` makes a model of the same kind: JSON values only."""
        layer = self.layer_weights[0]
        return {
            "model": type(self).name,
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "output_size": self.output_size,
            "activation": self.activation.name,
            "recurrence": layer.recurrence.name,
            "parameterization": self.parameterization.config(),
            "num_layers": self.num_layers,
            "bias": layer.b is not None,
            "ensemble": list(self.ensemble),
        }

    def with_ensemble(self, ensemble: Sequence[int]) -> SequenceModel:
        """A model of this kind with these leading axes, whose weights are still to be set."""
        kind = {name: value for name, value in self.config().items() if name != "model"}
        kind |= {"activation": self.activation, "parameterization": self.parameterization, "ensemble": ensemble}
        return type(self)(**kind, seed=0, dtype=self.c.dtype, device=self.c.device)

    @property
    def layer_weights(self) -> tuple[LayerWeights, ...]:
        """The raw weights, layer by layer from the input."""
        return tuple(cast(LayerWeights, layer) for layer in self.layers)

    def raw_weights(self) -> dict[str, RawWeight]:
        """The description of every parameter and buffer, by its name in `state_dict`."""
        weights = {"c": READOUT}
        for index, layer in enumerate(self.layer_weights):
            own = {"U": INPUT} if layer.b is None else {"U": INPUT, "b": BIAS}
            own |= {f"recurrence.{name}": weight for name, weight in layer.recurrence.raw_weights().items()}
            weights |= {f"layers.{index}.{name}": weight for name, weight in own.items()}
        # What a subclass adds is perturbed as it is.
        return weights | {name: _OTHER for name in self.state_dict() if name not in weights}

    def field(self) -> VectorField:
        """The vector field at the effective weights of this moment, differentiable in the raw ones."""
        layers = tuple(layer.effective() for layer in self.layer_weights)
        return VectorField(self.form, layers, self.activation, self.c)

    def spectrum(self) -> Tensor:
        """Eigenvalues of every layer's W, complex, (*ensemble, num_layers * hidden_size)."""
        return torch.cat([layer.recurrence.spectrum() for layer in self.layer_weights], -1)

    def stability_margin(self) -> Tensor:
        """Distance of the spectrum of W from instability, (*ensemble,): -max Re l in continuous time, 1 - max |l| in
        discrete time. Negative: unstable. (`DiscreteRNN` is the Euler step of a continuous model: its W is judged as such.)"""
        spectrum = self.spectrum()
        return -spectrum.real.amax(-1) if self.time == "continuous" else 1 - spectrum.abs().amax(-1)

    def slowest_rate(self, step: float = 1.0) -> Tensor:
        """Rate at which the slowest mode of W decays, per unit time, (*ensemble,): -max Re l in continuous time, and
        -log(max |l|) / step for a map that advances time by `step`. Negative: it grows."""
        spectrum = self.spectrum()
        return -spectrum.real.amax(-1) if self.time == "continuous" else -spectrum.abs().amax(-1).log() / step

    def set_matrix(self, W: Tensor, layer: int = 0) -> None:
        """Sets the raw weights of one layer so that its effective W is this one, (m, m) or (*ensemble, m, m): the papers
        compare parameterisations from identical W.

        Raises:
            ValueError: a W that the recurrence and parameterisation cannot take, or no such layer.
        """
        layer = arguments.count("layer", layer, least=0, most=self.num_layers - 1)
        self.layer_weights[layer].recurrence.set_matrix(W)

    def rest_state(self) -> Tensor:
        """The state that h(-inf) = 0 has reached by t = 0 under zero input, (*ensemble, state): W h + b = 0; 0 where there
        is no unique one (RNN with relu or sigmoid)."""
        return self.field().rest_state(discrete=self.time == "discrete")

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        h0: InitialState = None,
        *,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
        return_state: bool = False,
    ) -> Any:
        """y at times t for samples x of the input.

        Args:
            x: (..., batch, time, input).
            t: (time,), increasing, even or not; or (batch, time), the times of each sequence.
            h0: state at t[0], broadcasting to (*ensemble, batch, state); None or 'rest' for the zero-input rest state (the
                papers' h(-inf) = 0), 'zero' for 0.
            solver: of a continuous model: a `Solver`, a name of `odernn.solvers.SOLVERS`, or None for
                `odernn.solvers.automatic`.
            interpolation: of x between the samples, 'linear' or 'hold'; a map reads x at the samples alone.
            return_state: whether to return the state at t[-1], too, from which the next call goes on.

        Returns:
            y, (*ensemble, batch, time, output); with `return_state` (y, h), h (*ensemble, batch, state), of a stack layer after
            layer as in h0.

        Raises:
            ValueError: shapes, times or values that do not fit, or a solver for a map.
            DivergedSolve: the state did not stay finite.
        """
        path, field, solver = self._input(x, t, interpolation), self.field(), named(solver)
        if return_state:
            h = self._solve(field, path, path.times, h0, solver, check=True).h
            return readout_along(field, h), h[..., -1, :]
        if arguments.traced() or self.is_map or not self.ensemble or not (solver or automatic(field)).memberwise(field.c):
            return readout_along(field, self._solve(field, path, path.times, h0, solver, check=True).h)

        def states(field: VectorField, path: Path, start: Tensor) -> Tensor:
            return self._checked_states(field, path, start, solver, check=True).h

        return readout_by_members(states, field, path, self._initial_state(field, h0, path.samples, check=True))

    def respond(
        self,
        x: Tensor,
        t: Tensor,
        h0: InitialState = None,
        *,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
        check: bool = True,
    ) -> Response:
        """As `forward`, with the states and the cost of the solve.

        `check=False` returns a diverged state as it came (inf or nan) in place of raising.
        """
        path, field = self._input(x, t, interpolation), self.field()
        solution = self._solve(field, path, path.times, h0, named(solver), check)
        return Response(readout_along(field, solution.h), solution)

    def step(
        self,
        h: InitialState,
        x_left: Tensor,
        x_right: Tensor,
        dt: float | Tensor,
        *,
        t: float | Tensor = 0.0,
        solver: Solver | str | None = None,
        interpolation: Interpolation = "linear",
    ) -> tuple[Tensor, Tensor]:
        """One step in time, for input that comes sample by sample.

            y, h = model.step(h, x[:, k], x[:, k + 1], dt)

        In a loop this gives what `forward` gives for the whole sequence: to rounding by `Exact`, `Fused` and in maps, to the
        tolerances by adaptive solvers.

        Args:
            h: the state now, as h0 of `forward`.
            x_left, x_right: (..., batch, input), the input now and a time dt later: linear between, or with 'hold' x_left all
                along. A map reads x_left alone.
            dt: time of the step, > 0.
            t: time now, which a field that depends on it (`NeuralODE`) must be told.
            solver, interpolation: as in `forward`.

        Returns:
            y (*ensemble, batch, output) and h (*ensemble, batch, state) a time dt later.

        Raises:
            ValueError, DivergedSolve: as `forward`.
        """
        dt = arguments.number("dt", dt.item() if isinstance(dt, Tensor) and dt.numel() == 1 else dt, above=0)
        for name, x in (("x_left", x_left), ("x_right", x_right)):
            if not isinstance(x, Tensor) or x.ndim < 2 or x.shape != x_left.shape:
                came = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"{name} is {came}, expected a tensor (..., batch, input), both alike: give x[..., k, :] of x")
        start = arguments.number("t", t.item() if isinstance(t, Tensor) and t.numel() == 1 else t)
        times = torch.tensor([start, start + dt], dtype=torch.float64, device=x_left.device)
        x = torch.stack([x_left, x_right], -2)
        y, state = self(x, times, h, solver=solver, interpolation=interpolation, return_state=True)
        return y[..., -1, :], state

    def parameter_groups(
        self,
        *,
        recurrent_lr: float | None = None,
        input_lr: float | None = None,
        readout_lr: float | None = None,
        weight_decay: float | None = None,
    ) -> list[dict[str, Any]]:
        """The trainable weights by what they do, for an optimiser of torch.optim:

            torch.optim.Adam(model.parameter_groups(recurrent_lr=1e-4), lr=1e-3)

        Args:
            recurrent_lr: learning rate of the raw weights of W, of every layer; None for the optimiser's.
            input_lr: of U and b.
            readout_lr: of c.
            weight_decay: of the weights that decay (U and c; what raw weights say of themselves), others have 0; None for the
                optimiser's, of all.

        Returns:
            Groups named 'recurrent', 'input', 'bias' and 'readout', those that hold weights.
        """
        rates: dict[WeightKind, float | None] = {
            "recurrent": recurrent_lr,
            "input": input_lr,
            "bias": input_lr,
            "readout": readout_lr,
        }
        known, weights = self.raw_weights(), {(kind, decays): list[Tensor]() for kind in rates for decays in (False, True)}
        for name, weight in self.named_parameters():
            if weight.requires_grad:
                weights[known[name].kind, known[name].decays].append(weight)
        groups = []
        for (kind, decays), own in weights.items():
            if own:
                group: dict[str, Any] = {"name": kind, "params": own}
                if (rate := rates[kind]) is not None:
                    group["lr"] = arguments.number(f"{kind}_lr", rate, least=0)
                if weight_decay is not None:
                    group["weight_decay"] = arguments.number("weight_decay", weight_decay, least=0) if decays else 0.0
                groups.append(group)
        return groups

    @abstractmethod
    def state_equation(self, h: Tensor, value: Tensor, step: Tensor | float) -> Tensor:
        """The right side of the state equation, from h, value = F(h, x) and the time Dt to the next sample: dh/dt, or h_{k+1}
        of a map."""

    @abstractmethod
    def _states(self, field: VectorField, path: Path, t: Tensor, h0: Tensor, solver: Solver | None) -> Solution:
        """The states at times t along a path, from h(t[0]) = h0."""

    @abstractmethod
    def _method(self, field: VectorField, t: Tensor, h0: Tensor, solver: Solver | None) -> operators.Method:
        """What gives the states, for `odernn.solvers.operators`."""

    def _solve(self, field: VectorField, path: Path, t: Tensor, h0: InitialState, solver: Solver | None, check: bool) -> Solution:
        initial = self._initial_state(field, h0, path.samples, check)
        if not arguments.traced():
            return self._checked_states(field, path, initial, solver, check, t)
        from_rest = h0 is None or (isinstance(h0, str) and h0 == "rest")
        method = self._method(field, t, initial, solver)
        return operators.run(method, self._states, field, path, t, initial, from_rest=from_rest, check=check)

    def _checked_states(
        self, field: VectorField, path: Path, h0: Tensor, solver: Solver | None, check: bool, t: Tensor | None = None
    ) -> Solution:
        solution = self._states(field, path, path.times if t is None else t, h0, solver)
        if check:
            check_finite(solution, field)
        return solution

    def _initial_state(self, field: VectorField, h0: InitialState, like: Tensor, check: bool) -> Tensor:
        shape = (*self.ensemble, like.shape[-3], field.size)
        if h0 is None or (isinstance(h0, str) and h0 == "rest"):
            rest = field.rest_state(discrete=self.time == "discrete")
            if check and not arguments.traced():
                check_start(rest)
            return rest.unsqueeze(-2).expand(shape)
        if isinstance(h0, str):
            if h0 != "zero":
                raise ValueError(f"h0 must be a real tensor, 'rest' or 'zero', got {h0!r}")
            return like.new_zeros(shape)
        h0 = arguments.real_tensor("h0", h0)
        if h0.ndim > len(shape) or any(own not in (1, whole) for own, whole in zip(h0.shape[::-1], shape[::-1])):
            raise ValueError(
                f"h0 must have a shape that broadcasts to {shape} (*ensemble, batch, state), got {tuple(h0.shape)}: give as many "
                "states as x has sequences in its batch, or one for all"
            )
        return h0.to(like).expand(shape)

    def _input(self, x: Tensor, t: Tensor, interpolation: Interpolation) -> Path:
        """The path of samples x at times t, with both checked against each other and the model."""
        path = interpolate(t, x, interpolation)
        grids.check_resolution(path.times)
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"x must be (..., batch, time, channel) with the model's {self.input_size} channels, got {tuple(x.shape)}"
            )
        if x.shape[:-3] != self.ensemble[len(self.ensemble) - (x.ndim - 3) :]:
            raise ValueError(
                f"leading axes of x, {tuple(x.shape[:-3])}, must be trailing axes of the ensemble {self.ensemble}: "
                "flatten further axes into the batch"
            )
        if x.dtype != self.c.dtype or x.device != self.c.device:
            raise ValueError(
                f"x is {x.dtype} on {x.device}, the model {self.c.dtype} on {self.c.device}: "
                "convert one (x.to(...), model.to(...))"
            )
        arguments.real_tensor("x", x)
        return path
