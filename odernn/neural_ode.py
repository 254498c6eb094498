"""Equations of the user's own: dh/dt = f(t, h, x) for any f, a torch.nn.Module or a function."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from targets import arguments

from .activations import Activation
from .citations import record
from .layer_weights import LayerWeights
from .models import ContinuousModel
from .norms import EUCLIDEAN, SPECTRAL
from .own_fields import Code, Initial, OwnField
from .raw_weights import READOUT, RawWeight, WeightKind

# Rows of a batched Jacobian, and states and times of the trial, by which f is checked.
_TRIAL_ROWS, _TRIAL_TIMES = 3, (0.0, 0.37, 1.9, 40.0)
# Two evaluations that differ by more roundings than this are not the same function of (h, x).
_ROUNDINGS = 1e4


@dataclass(frozen=True)
class _Unknown(Activation):
    """In place of the activation that a field of one's own has none of."""

    def __post_init__(self) -> None:
        pass

    def __call__(self, z: Tensor) -> Tensor:
        raise ValueError("a NeuralODE has no activation that is known: leave out what asks for one")


class NeuralODE(ContinuousModel):
    """dh/dt = f(t, h, x), y = c^T h, for any f.

    It is integrated by torchdiffeq: `TorchDiffEq` with any method, by its adjoint or by backpropagation, and by default dopri5
    with backpropagation. x between the samples, its kinks and its jumps are handled as for every model.

    h(t[0]) is where the flow from h = 0 comes to rest without input; it is 0 where there is no rest, where f depends on t, and
    with `initial='zero'`. `spectrum`, `stability_margin` and `slowest_rate` are those of df/dh at rest, NaN where there is none.

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
        >>> import torch
        >>> from odernn import NeuralODE
        >>> class Oscillator(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.k = torch.nn.Parameter(torch.tensor(1.0))
        ...
        ...     def forward(self, t, h, x):
        ...         return torch.stack([h[:, 1], x[:, 0] - self.k * h[:, 0] - 0.5 * h[:, 1]], -1)
        >>> NeuralODE(Oscillator(), state_size=2)(torch.ones(4, 11, 1), torch.linspace(0, 1, 11)).shape
        torch.Size([4, 11, 1])

    Source: Chen et al., Neural ordinary differential equations, NeurIPS 2018 [Chen2018].
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
        record(NeuralODE)
        nn.Module.__init__(self)  # the weights of other models are those of layers
        if not callable(field) or isinstance(field, type):
            raise ValueError(f"field is {arguments.kind_of(field)}, expected a torch.nn.Module or function f(t, h, x): give one")
        if state_size is None:
            state_size = getattr(field, "state_size", getattr(field, "hidden_size", None))
            if state_size is None:
                raise ValueError("state_size is not given, and the field has no such attribute: give state_size=, entries of h")
        self.hidden_size = arguments.count("state_size", state_size)
        self.input_size = arguments.count("input_size", input_size)
        self.initial: Initial = initial
        arguments.choice("initial", initial, ("rest", "zero"))
        self.ensemble: tuple[int, ...] = ()
        self.f, self.head = field, None if isinstance(readout, str) else readout
        self.activation = _Unknown("of your own", cast("Any", type(field) if isinstance(field, nn.Module) else field), False)
        weights = [weight for weight in self.parameters() if weight.is_floating_point()]
        like = weights[0] if weights else torch.empty(0)
        dtype, device = dtype or like.dtype, device or like.device
        linear = isinstance(readout, str) and arguments.choice("readout", readout, ("linear", "state")) == "linear"
        outputs = None if output_size is None else arguments.count("output_size", output_size)
        if linear:
            generator = None if seed is None else arguments.generator(seed)
            c = torch.randn(outputs or 1, self.hidden_size, generator=generator, dtype=torch.float64)
            self.c = nn.Parameter(c / math.sqrt(self.hidden_size))
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
        axes, fixed = len(self.ensemble), None if isinstance(made.c, nn.Parameter) else made.c
        for module in made.modules():
            for held in cast("tuple[dict[str, Tensor | None], ...]", (module._parameters, module._buffers)):
                for name, tensor in held.items():
                    if tensor is not None and tensor.is_floating_point() and tensor is not fixed:
                        new = tensor.new_empty((*ensemble, *tensor.shape[axes:]))
                        held[name] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
        made.ensemble = tuple(ensemble)
        return made

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
                kind: WeightKind = "recurrent" if name.startswith("f.") else "readout"
                weights[name] = RawWeight(norm, widen=_cannot_widen, decays=matrix, kind=kind)
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
            steady=self.autonomous,
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
                "the field uses weights that the model does not see (a function with a module inside it?), and would not train "
                "them: give a torch.nn.Module that holds them, or detach them"
            )
        tolerance = _ROUNDINGS * torch.finfo(h.dtype).eps * (1 + float(first.abs().max()))
        if float((values[1] - first).abs().max()) > tolerance:
            raise ValueError("the field gives other values for the same (t, h, x): it is random; call .eval() if it has dropout")
        alone = _called(rate, f"field: {shapes}", torch.tensor(0.0).to(h), h[:1], x[:1])
        if float((alone - first[:1]).abs().max()) > tolerance:
            raise ValueError(
                "the field mixes the sequences of a batch: f of one row of h and x is not that row of f; compute along the last "
                "axis, without batch normalisation"
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
        raise ValueError(
            f"{what} failed ({type(error).__name__}: {reason}): repair it, or give state_size and input_size"
        ) from error
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} gave a {type(value).__name__}, expected a tensor: return that")
    return value


def _name(code: Any) -> str:
    made = type(code) if isinstance(code, nn.Module) else code
    return getattr(made, "__qualname__", type(code).__qualname__)


def _cannot_widen(narrow: Tensor, wide: Tensor) -> Tensor:
    raise ValueError("a NeuralODE cannot be widened: what its weights mean is known to its field alone; train the wide one anew")
