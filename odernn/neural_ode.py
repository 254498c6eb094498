"""Equations of the user's own: dh/dt = f(t, h, x) for any f, a torch.nn.Module or a function."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from targets import arguments

from .activations import Activation
from .fields import VectorField
from .layer_weights import LayerWeights
from .models import ContinuousModel
from .norms import EUCLIDEAN, SPECTRAL
from .raw_weights import READOUT, RawWeight
from .steady_states import settled_flow

Initial = Literal["rest", "zero"]
# Rows of a batched Jacobian, and states and times of the trial, by which f is checked.
_TRIAL_ROWS, _TRIAL_TIMES = 3, (0.0, 0.37, 1.9, 40.0)
# Two evaluations that differ by more roundings than this are not the same function of (h, x).
_ROUNDINGS = 1e4
# |f| at rest, relative to what f is made of there.
_AT_REST = 1e-6
# States along a trajectory at which its derivatives are taken for an estimate of rounding.
_SAMPLED_STATES = 5


@dataclass(frozen=True)
class Code:
    """A module or function of the user's, with the weights it is called with.

    Args:
        function: of tensors whose last but one axis is the batch.
        values: weights and floating-point buffers by name, with every axis of the ensemble.
    """

    function: Callable[..., Any]
    values: dict[str, Tensor]

    def __call__(self, axes: int, *given: Tensor) -> Tensor:
        """Its value for tensors (*ensemble, batch, ...), with `axes` axes of the ensemble, and scalars."""
        if not isinstance(self.function, nn.Module) or not axes:
            flat = [one.flatten(0, axes) if axes and one.ndim else one for one in given]
            value = self._at(self.values, *flat)
            return value.unflatten(0, given[-1].shape[: axes + 1]) if axes else value
        ensemble = given[-1].shape[:axes]
        names = list(self.values)
        stacked = [self.values[name].flatten(0, axes - 1) for name in names]
        flat = [one.flatten(0, axes - 1) if one.ndim else one for one in given]

        def member(*tensors: Tensor) -> Tensor:
            return self._at(dict(zip(names, tensors)), *tensors[len(names) :])

        along = tuple(0 if one.ndim else None for one in (*stacked, *flat))
        return torch.func.vmap(member, along)(*stacked, *flat).unflatten(0, ensemble)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Code:
        return replace(self, values={name: change(value) for name, value in self.values.items()})

    def _at(self, values: dict[str, Tensor], *given: Tensor) -> Tensor:
        if not isinstance(self.function, nn.Module):
            return self.function(*given)
        return torch.func.functional_call(self.function, values, given)


@dataclass(frozen=True)
class _Unknown:
    """In place of the function of an activation."""

    code: Any

    def __call__(self, z: Tensor) -> Tensor:
        raise ValueError("a NeuralODE has no activation that is known: leave out what asks for one")


@dataclass(frozen=True, kw_only=True)
class OwnField(VectorField):
    """F(h, x) = f(t, h, x) at one time t, with the readout y = c^T h or one of the user's own.

    Args:
        rate: f.
        head: the readout; None for c.
        states, inputs: entries of h and x.
        ensemble: leading axes of every weight.
        autonomous: whether f does not depend on t.
        initial: see `NeuralODE`.
        time: t, in double precision.
    """

    rate: Code
    head: Code | None
    states: int
    inputs: int
    ensemble: tuple[int, ...]
    autonomous: bool
    initial: Initial
    time: Tensor | float = 0.0

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        x = x.expand(*h.shape[:-1], x.shape[-1])
        return self.rate(len(self.ensemble), torch.as_tensor(self.time).to(h), h, x)

    def at(self, time: Tensor) -> OwnField:
        return self if self.autonomous else replace(self, time=time)

    def readout(self, h: Tensor) -> Tensor:
        return h @ self.c.mT if self.head is None else self.head(len(self.ensemble), h)

    def readout_derivative(self, h: Tensor, dh_dt: Tensor) -> Tensor:
        if self.head is None:
            return dh_dt @ self.c.mT
        return torch.func.jvp(self.readout, (h,), (dh_dt,))[1]

    def rest_state(self, discrete: bool = False) -> Tensor:
        """Where the flow from h = 0 comes to rest without input, (*ensemble, state): 0 where it comes to no rest, where f depends
        on t, and with `initial` 'zero'. First derivatives in the weights are those of the solution."""
        zero = self.c.new_zeros(*self.ensemble, 1, self.states)
        if self.initial == "zero" or not self.autonomous:
            return zero.squeeze(-2)
        x = self._no_input(zero)
        with torch.no_grad():
            if not self(zero, x).any():
                return zero.squeeze(-2)
            h, settled = settled_flow(lambda h: self(h, x), lambda h: self.jacobian(h, x), zero)
            J = self.jacobian(h, x)
        if torch.is_grad_enabled():
            h = h - torch.linalg.solve_ex(J, self(h, x).unsqueeze(-1)).result.squeeze(-1)
        return torch.where(settled.unsqueeze(-1), h, zero).squeeze(-2)

    def steady_state(self, x: Tensor) -> Tensor:
        return x.new_full((*self.ensemble, x.shape[-2], self.states), math.nan)

    def rests(self, h: Tensor) -> bool:
        with torch.no_grad():
            h = h.expand(*self.ensemble, *h.shape[-2:])
            value, J = self(h, self._no_input(h)), self.jacobian(h, self._no_input(h))
            size = (J.abs() @ h.abs().unsqueeze(-1)).squeeze(-1).amax() + J.abs().amax()
            return self.autonomous and bool(value.abs().amax() <= _AT_REST * size)

    def jacobian(self, h: Tensor, x: Tensor) -> Tensor:
        """dF/dh, (*ensemble, n, state, state), differentiable where gradients are recorded."""
        return self._derivative(lambda at: self(at, x.repeat_interleave(self.states, -2)), h, self.states)

    def spectrum(self) -> Tensor:
        """Eigenvalues of df/dh at rest without input, complex, (*ensemble, state); NaN where there is no rest."""
        h = self.rest_state().unsqueeze(-2)
        J = self.jacobian(h, self._no_input(h)).squeeze(-3)
        if not torch.isfinite(J).all() or not self.rests(h.detach()):
            return torch.full_like(J[..., 0], math.nan).to(torch.complex(J.real, J.real).dtype)
        return torch.linalg.eigvals(J)

    @property
    def spectrum_of(self) -> str:
        return "df/dh at rest"

    @property
    def linear(self) -> bool:
        return False

    @property
    def affine(self) -> bool:
        return False

    @property
    def opaque(self) -> bool:
        return True

    def derivative_error(self, h: Tensor, x: Tensor, relative: float, absolute: float) -> Tensor:
        """As of other fields; what F is made of is told by its derivatives at some of the states."""
        some = torch.linspace(0, h.shape[-2] - 1, min(_SAMPLED_STATES, h.shape[-2])).round().long()
        at = h[..., some, :]
        drive = x.unsqueeze(-2).expand(*x.shape[:-1], len(some), -1).flatten(-3, -2)
        flat = at.flatten(-3, -2)

        def change(states: Tensor) -> Tensor:
            return self.readout_derivative(states, self(states, drive.repeat_interleave(states.shape[-2] // flat.shape[-2], -2)))

        with torch.enable_grad():
            J = self._derivative(change, flat, change(flat).shape[-1]).abs()
            through = self._derivative(
                lambda u: self.readout_derivative(
                    flat.repeat_interleave(u.shape[-2] // flat.shape[-2], -2),
                    self(flat.repeat_interleave(u.shape[-2] // flat.shape[-2], -2), u),
                ),
                drive,
                J.shape[-2],
            ).abs()
        size = (J @ flat.abs().unsqueeze(-1) + through @ drive.abs().unsqueeze(-1)).squeeze(-1) + change(flat).abs()
        error = relative * size + absolute * J.sum(-1)
        return error.unflatten(-2, (h.shape[-3], len(some))).amax(-2).detach()

    def readout_error(self, h: Tensor, relative: float, absolute: float) -> Tensor:
        flat = h[..., -1:, :].flatten(-3, -2)
        y = self.readout(flat)
        J = self._derivative(self.readout, flat, y.shape[-1]).abs()
        size = (J @ h.abs().amax(-2).unsqueeze(-1)).squeeze(-1) + y.abs()
        return (relative * size + absolute * J.sum(-1)).detach()

    @property
    def size(self) -> int:
        return self.states

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(self.rate.values.values())

    def mapped(self, change: Callable[[Tensor], Tensor]) -> OwnField:
        head = None if self.head is None else self.head.mapped(change)
        return replace(self, rate=self.rate.mapped(change), head=head, c=change(self.c))

    def _derivative(self, function: Callable[[Tensor], Tensor], at: Tensor, rows: int) -> Tensor:
        """The derivatives of `rows` values, (..., n, rows, entries): each state once for every row, and one backward pass."""
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            states = at.repeat_interleave(rows, -2)
            states = states if states.requires_grad else states.detach().requires_grad_()
            value = function(states)
            pick = torch.eye(rows).to(at).repeat(at.shape[-2], 1)
            total = (value * pick).sum()
            if not total.requires_grad:
                return at.new_zeros(*at.shape[:-1], rows, at.shape[-1])
            (gradient,) = torch.autograd.grad(total, states, create_graph=create, allow_unused=True)
        gradient = torch.zeros_like(states) if gradient is None else gradient
        return gradient.unflatten(-2, (at.shape[-2], rows))

    def _no_input(self, h: Tensor) -> Tensor:
        return h.new_zeros(*h.shape[:-1], self.inputs)


class NeuralODE(ContinuousModel):
    """dh/dt = f(t, h, x), y = c^T h, for any f.

    It is integrated by torchdiffeq: `TorchDiffEq` with any method, by its adjoint or by backpropagation, and by default dopri5 with
    backpropagation. x between the samples, its kinks and its jumps are handled as for every model.

    h(t[0]) is where the flow from h = 0 comes to rest without input; it is 0 where there is no rest, where f depends on t, and with
    `initial='zero'`. `spectrum`, `stability_margin` and `slowest_rate` are those of df/dh at rest, NaN where there is none.

    Args:
        field: f, a torch.nn.Module (whose weights are then trained) or a function without weights, of (t, h, x) with t a scalar,
            h (batch, state) and x (batch, input), to dh/dt (batch, state). It must treat each sequence of a batch by itself.
        state_size: entries of h; None for the attribute `state_size` or `hidden_size` of the field.
        output_size: entries of y; None for 1, or what the readout gives.
        input_size: entries of x.
        readout: 'linear' for c^T h; 'state' for y = h; or a module or function of h (n, state) to (n, output).
        initial: 'rest' or 'zero'.
        seed: of c, as for every model.
        dtype, device: that the weights of field and readout are moved to; None for those of the field.

    Raises:
        ValueError: a field that cannot be called so, gives another shape or precision, is random, mixes the sequences of a
            batch, or uses weights that the model does not see.

    Example:
        class Oscillator(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.k = torch.nn.Parameter(torch.tensor(1.0))

            def forward(self, t, h, x):
                return torch.stack([h[:, 1], x[:, 0] - self.k * h[:, 0] - 0.5 * h[:, 1]], -1)

        model = NeuralODE(Oscillator(), state_size=2)

    Source: Chen et al., Neural ordinary differential equations, NeurIPS 2018.
    """

    form = "own"
    name = "neural_ode"
    num_layers = 1

    def __init__(
        self,
        field: nn.Module | Callable[[Tensor, Tensor, Tensor], Tensor],
        state_size: int | None = None,
        output_size: int | None = None,
        *,
        input_size: int = 1,
        readout: Literal["linear", "state"] | nn.Module | Callable[[Tensor], Tensor] = "linear",
        initial: Initial = "rest",
        seed: int | torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        nn.Module.__init__(self)  # the weights of other models are those of layers
        if not callable(field) or isinstance(field, type):
            raise ValueError(f"field is {arguments.kind_of(field)}, expected a torch.nn.Module or function f(t, h, x): give one")
        if state_size is None:
            state_size = getattr(field, "state_size", getattr(field, "hidden_size", None))
            if state_size is None:
                raise ValueError("state_size is not given, and the field has no attribute of that name: give state_size=, entries of h")
        self.hidden_size = arguments.count("state_size", state_size)
        self.input_size = arguments.count("input_size", input_size)
        self.initial = arguments.choice("initial", initial, ("rest", "zero"))
        self.ensemble: tuple[int, ...] = ()
        self.f, self.head = field, None if isinstance(readout, str) else readout
        self.activation = Activation("of your own", _Unknown(type(field) if isinstance(field, nn.Module) else field), False)
        weights = [weight for weight in self.parameters() if weight.is_floating_point()]
        like = weights[0] if weights else torch.empty(0)
        dtype, device = dtype or like.dtype, device or like.device
        linear = isinstance(readout, str) and arguments.choice("readout", readout, ("linear", "state")) == "linear"
        outputs = None if output_size is None else arguments.count("output_size", output_size)
        if linear:
            generator = None if seed is None else arguments.generator(seed)
            c = torch.randn(outputs or 1, self.hidden_size, generator=generator, dtype=torch.float64) / math.sqrt(self.hidden_size)
            self.c = nn.Parameter(c)
        else:
            given = torch.eye(self.hidden_size) if self.head is None else torch.empty(0)
            self.register_buffer("c", given, persistent=False)
        self.to(device=device, dtype=dtype)
        self.readout_name = readout if isinstance(readout, str) else _name(readout)
        self.autonomous = True  # until it is tried
        self.autonomous = self._try()
        self.output_size = self._try_readout(outputs)

    def config(self) -> dict[str, Any]:
        """What kind of model it is: JSON values only. The field is code, of which this holds the name."""
        return {
            "model": self.name,
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "output_size": self.output_size,
            "field": _name(self.f),
            "readout": self.readout_name,
            "initial": self.initial,
            "ensemble": list(self.ensemble),
        }

    def with_ensemble(self, ensemble: Sequence[int]) -> NeuralODE:
        made = copy.deepcopy(self)
        axes = len(self.ensemble)
        for module in made.modules():
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is not None and tensor.is_floating_point() and not (module is made and name == "c" and made.c_is_fixed):
                        new = tensor.new_empty(*ensemble, *tensor.shape[axes:])
                        held[name] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
        made.ensemble = tuple(ensemble)
        return made

    @property
    def c_is_fixed(self) -> bool:
        return not isinstance(self.c, nn.Parameter)

    @property
    def layer_weights(self) -> tuple[LayerWeights, ...]:
        return ()

    def raw_weights(self) -> dict[str, RawWeight]:
        weights = {"c": READOUT}
        axes = len(self.ensemble)
        for name, tensor in self.state_dict().items():
            if name != "c":
                matrix = tensor.ndim - axes == 2
                norm = SPECTRAL if matrix else EUCLIDEAN
                weights[name] = RawWeight(norm, widen=_cannot_widen, decays=matrix, recurrent=name.startswith("f."))
        return weights if "c" in self.state_dict() else {name: weights[name] for name in weights if name != "c"}

    def field(self) -> OwnField:
        head = None if self.head is None else self._code(self.head)
        return OwnField(
            form="own",
            layers=(),
            activation=self.activation,
            c=self.c,
            rate=self._code(self.f),
            head=head,
            states=self.hidden_size,
            inputs=self.input_size,
            ensemble=self.ensemble,
            autonomous=self.autonomous,
            initial=self.initial,
        )

    def spectrum(self) -> Tensor:
        return self.field().spectrum()

    def set_matrix(self, W: Tensor, layer: int = 0) -> None:
        raise ValueError("a NeuralODE has no W to set: set the weights of its field")

    def extra_repr(self) -> str:
        return f"state {self.hidden_size}, input {self.input_size}, output {self.output_size}, solved by torchdiffeq"

    def _code(self, function: Callable[..., Any]) -> Code:
        if not isinstance(function, nn.Module):
            return Code(function, {})
        named = (*function.named_parameters(), *function.named_buffers())
        return Code(function, {name: tensor for name, tensor in named if tensor.is_floating_point()})

    @torch.enable_grad()
    def _try(self) -> bool:
        """One small evaluation after another, so that whatever does not fit is said in the user's terms; whether f does not
        depend on t."""
        n, m, d = _TRIAL_ROWS, self.hidden_size, self.input_size
        generator = torch.Generator().manual_seed(0)
        h, x = (torch.randn(n, size, generator=generator, dtype=torch.float64).to(self.c) for size in (m, d))
        rate = self.field().mapped(torch.Tensor.detach).rate
        shapes = f"f(t, h, x) with t a scalar, h ({n}, {m}) and x ({n}, {d}) in {h.dtype}"
        values = [_called(rate, f"field: {shapes}", torch.tensor(time).to(h), h, x) for time in (0.0, *_TRIAL_TIMES)]
        first = values[0]
        if first.shape != h.shape or first.dtype != h.dtype:
            raise ValueError(
                f"field: {shapes} gave {first.dtype} {tuple(first.shape)}, expected dh/dt, {h.dtype} ({n}, {m}): return that, or "
                "give another state_size, input_size or dtype"
            )
        if first.requires_grad:
            raise ValueError(
                "the field uses weights that the model does not see (a function with a module inside it?), so that they would not be "
                "trained: give a torch.nn.Module that holds them, or detach them"
            )
        tolerance = _ROUNDINGS * torch.finfo(h.dtype).eps * (1 + float(first.abs().max()))
        if float((values[1] - first).abs().max()) > tolerance:
            raise ValueError("the field gives other values for the same (t, h, x): it is random; call .eval() if it has dropout")
        alone = _called(rate, f"field: {shapes}", torch.tensor(0.0).to(h), h[:1], x[:1])
        if float((alone - first[:1]).abs().max()) > tolerance:
            raise ValueError(
                "the field mixes the sequences of a batch: f of one row of h and x is not that row of f; compute along the last axis, "
                "and use no batch normalisation"
            )
        return all(float((value - first).abs().max()) <= tolerance for value in values[2:])

    def _try_readout(self, outputs: int | None) -> int:
        m = self.hidden_size
        h = torch.randn(_TRIAL_ROWS, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(self.c)
        head = self.field().mapped(torch.Tensor.detach)
        y = head.readout(h) if head.head is None else _called(head.head, f"readout: of h ({_TRIAL_ROWS}, {m}) in {h.dtype}", h)
        if y.ndim != 2 or y.shape[0] != h.shape[0] or y.dtype != h.dtype or y.shape[1] != (outputs or y.shape[1]):
            raise ValueError(
                f"readout: of h ({_TRIAL_ROWS}, {m}) gave {y.dtype} {tuple(y.shape)}, expected {h.dtype} "
                f"({_TRIAL_ROWS}, {outputs or 'output'}): return that, or give another output_size"
            )
        if y.requires_grad:
            raise ValueError("the readout uses weights that the model does not see: give a torch.nn.Module that holds them")
        return y.shape[1]


def _called(code: Code, what: str, *given: Tensor) -> Tensor:
    try:
        value = code(0, *given)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{what} failed ({type(error).__name__}: {reason}): repair it, or give state_size and input_size") from error
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} gave a {type(value).__name__}, expected a tensor: return that")
    return value


def _name(code: Any) -> str:
    made = type(code) if isinstance(code, nn.Module) else code
    return getattr(made, "__qualname__", type(code).__qualname__)


def _cannot_widen(narrow: Tensor, wide: Tensor) -> Tensor:
    raise ValueError("a NeuralODE cannot be widened: what its weights mean is known to its field alone; train the wide one anew")
