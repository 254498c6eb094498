"""The state equation of a recurrent system as a function with its Jacobian, for fixed points and Lyapunov exponents."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from odernn import SequenceModel

# rows of a batched Jacobian evaluated at once: bounds the memory, m rows for each state of size m
_ROWS_AT_ONCE = 2**16


class Dynamics(ABC):
    """dh/dt = F(h, x) (a flow) or h_{k+1} = F(h_k, x_k) (a map).

    Attributes:
        kind: "flow" or "map".
        size: entries of h.
        input_size: d.
        dt: time of one step of a map; 1 for a flow.
        autonomous: whether F is the same at all times.
    """

    kind: Literal["flow", "map"]
    size: int
    input_size: int
    dt: float = 1.0
    autonomous: bool = True
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        """F, (n, size), for h (n, size) and x (n, d)."""

    def at(self, time: Tensor) -> Dynamics:
        """The equation at one time, of one that changes with it."""
        return self

    def rest(self) -> Tensor:
        """The state to start from, (size,)."""
        return torch.zeros(self.size, dtype=self.dtype, device=self.device)

    def jacobian(self, h: Tensor, x: Tensor) -> Tensor:
        """dF/dh, (n, size, size), at h (n, size), x (n, d), by automatic differentiation."""
        count = max(1, _ROWS_AT_ONCE // self.size**2)
        return torch.cat([self._jacobian(*part) for part in zip(h.split(count), x.split(count))])

    def _jacobian(self, h: Tensor, x: Tensor) -> Tensor:
        # each state once for every row of its Jacobian: one backward pass gives all of them
        rows = self.size
        with torch.enable_grad():
            at = h.detach().repeat_interleave(rows, 0).requires_grad_()
            value = self(at, x.repeat_interleave(rows, 0))
            pick = torch.eye(rows, dtype=h.dtype, device=h.device).repeat(h.shape[0], 1)
            (gradient,) = torch.autograd.grad((value * pick).sum(), at)
        return gradient.unflatten(0, (h.shape[0], rows))


class ModelDynamics(Dynamics):
    """The state equation of a model of odernn."""

    def __init__(self, model: SequenceModel, dt: float) -> None:
        self._model = copy.deepcopy(model).requires_grad_(False).eval()
        self._field = self._model.field()
        self.size, self.input_size = self._field.size, model.input_size
        self.dtype, self.device = model.c.dtype, model.c.device
        self._rest = self._model.rest_state().nan_to_num()
        self.autonomous = self._field.autonomous
        self.kind = "map" if model.is_map else "flow"
        self.dt = dt if model.is_map else 1.0

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return self._model.state_equation(h, self._field(h, x), self.dt)

    def at(self, time: Tensor) -> ModelDynamics:
        if self.autonomous:
            return self
        then = copy.copy(self)
        then._field = self._field.at(time)
        return then

    def rest(self) -> Tensor:
        return self._rest


class ModuleDynamics(Dynamics):
    """One step of a torch module; outputs are the h of the last layer, so the state carries everything there is."""

    kind = "map"

    def __init__(self, module: nn.RNNBase, dt: float) -> None:
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        self.dt, self.input_size = dt, module.input_size
        weight = next(module.parameters())
        self.dtype, self.device = weight.dtype, weight.device
        widths = [module.proj_size or module.hidden_size] + ([module.hidden_size] if isinstance(module, nn.LSTM) else [])
        self._widths = [module.num_layers * width for width in widths]
        self.size = sum(self._widths)

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        layers = self._module.num_layers
        parts = [part.unflatten(-1, (layers, -1)).transpose(0, 1).contiguous() for part in h.split(self._widths, -1)]
        step = x.unsqueeze(1 if self._module.batch_first else 0)
        _, after = self._module(step, tuple(parts) if len(parts) > 1 else parts[0])
        after = after if isinstance(after, tuple) else (after,)
        return torch.cat([part.transpose(0, 1).flatten(1) for part in after], -1)


class FieldDynamics(Dynamics):
    """A vector field F(h) of the user's own, without input."""

    kind = "flow"
    input_size = 1

    def __init__(self, field: Callable[[Tensor], Tensor], size: int) -> None:
        self._field, self.size = field, size
        try:
            trial = field(torch.zeros(2, size, dtype=self.dtype))
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(f"system: the vector field failed on h of shape (2, {size}) ({reason}); repair it") from error
        if not isinstance(trial, Tensor) or trial.shape != (2, size) or trial.dtype != self.dtype:
            found = f"{trial.dtype} {tuple(trial.shape)}" if isinstance(trial, Tensor) else type(trial).__name__
            raise ValueError(
                f"system: the vector field gave {found} for h of shape (2, {size}), expected the same shape in float64"
            )

    def __call__(self, h: Tensor, x: Tensor) -> Tensor:
        return self._field(h)
