"""Functionals H_t(x), the targets of sequence models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from targets import arguments, grids, kernels, quadrature
from targets.kernels import Kernel

Interpolation = Literal["linear", "hold"]
Array = NDArray[np.float64]
PointwiseFunction = Callable[[Tensor], Tensor]

# Time grids whose weights are kept: training, validation and test, and one to spare.
_CACHED_GRIDS = 4
# Pairs of times whose moments are computed together on uneven grids: some 50 MB of temporaries.
_PAIRS_AT_ONCE = 2**18
# Weights (time, time, channel) of an uneven grid, at most: 4096 times, 128 MB, some 25 s of quadrature.
_MAX_UNEVEN_WEIGHTS = 2**24


class Functional(ABC):
    """A causal functional sequence H: y(t) = H_t(x), with x = 0 before t_0 and H_t(0) = 0.

    Attributes:
        input_size, output_size: numbers of channels, None if unconstrained or unknown.
        quadrature_error: largest relative error estimate of any quadrature so far; None before the first, or without any.

    Example:
        >>> from targets import Functional, make_target
        >>> isinstance(make_target("sine"), Functional)
        True
    """

    input_size: int | None = None
    output_size: int | None = None

    @property
    def quadrature_error(self) -> float | None:
        return None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """H_t(x) at the sample times, differentiable in x.

        Args:
            x: (..., time, input_size) samples of the input.
            t: (time,) increasing times, possibly uneven.

        Returns:
            (..., time, output_size), dtype and device of x.

        Raises:
            ValueError: t is not increasing, x is not finite, or their shapes disagree.
        """
        n = len(grids.times(t))
        arguments.floating_tensor("x", x, shape="(..., time, channel)")
        if x.ndim < 2 or x.shape[-2] != n:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (..., {n}, channel) for {n} times; give one sample per time"
            )
        _check_channels("x", x, self.input_size)
        return self._respond(x, t)

    @abstractmethod
    def _respond(self, x: Tensor, t: Tensor) -> Tensor:
        """H_t(x) for checked x and t."""


class StepResponseFunctional(Functional):
    """A functional whose response to the Heaviside input u^x (x for t >= 0, 0 before) is known in closed form.

    Attributes:
        innermost: the functional that the nonlinearities of this one act on; itself where it has none.

    Example:
        >>> import torch
        >>> from targets import make_target
        >>> make_target("exponential").step(torch.tensor([1.0]), torch.ones(1, 1)).shape  # 1 - 1/e
        torch.Size([1, 1, 1])
    """

    @property
    def innermost(self) -> StepResponseFunctional:
        return self

    @abstractmethod
    def step(self, t: Tensor, x: Tensor) -> Tensor:
        """The step response H_t(u^x), to a Heaviside input that sets in at time 0.

        Args:
            t: (time,) increasing times; before 0 the response is 0.
            x: (..., input_size) amplitudes.

        Returns:
            (..., time, output_size), dtype and device of x; float64 for whole numbers.

        Raises:
            ValueError: t is not increasing, x is not finite or has other channels.
        """

    @abstractmethod
    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """d/dt H_t(u^x), without finite differences; arguments and axes as in `step`.

        Source: the integrand of the memory function, [IA] Def 3.1.
        """

    def transform(self, y: Tensor) -> Tensor:
        """The outputs of this functional where those of `innermost` are y."""
        return y

    def transform_rate(self, rate: Tensor, y: Tensor) -> Tensor:
        """d/dt `transform`(y) where dy/dt is `rate`; differentiable in y where y asks for it."""
        return rate


class ConvolutionalFunctional(StepResponseFunctional):
    """A linear functional given by its memory kernel.

        y(t_n) = int_{t_0}^{t_n} rho(t_n - s)^T x(s) ds,   x(s) the interpolant of the samples, y(t_0) = 0

    Exact for the interpolant up to quadrature, so that y does not depend on the grid an interpolant is
    written on: the moments of rho on the grid's cells by `quadrature.moments`, then an FFT convolution on
    even grids and a direct sum on uneven ones. Computed in float64 whatever the dtype of x. The weights of
    the last few grids are kept.

    Args:
        kernel: rho; its size is the number of input channels.
        interpolation: "linear" between samples, or "hold": x(s) = x(t_k) for t_k <= s < t_{k+1}.

    Raises:
        ValueError: no `Kernel`, or an unknown interpolation.

    Example:
        >>> import torch
        >>> from targets import ConvolutionalFunctional, inputs, kernels
        >>> t = torch.linspace(0, 10, 101, dtype=torch.float64)
        >>> H = ConvolutionalFunctional(kernels.exponential())
        >>> H(inputs.white_noise(t, batch=8), t).shape
        torch.Size([8, 101, 1])

    Source: [IA] Eq 4 (Riesz representation).
    """

    output_size = 1

    def __init__(self, kernel: Kernel, interpolation: Interpolation = "linear") -> None:
        arguments.instance("kernel", kernel, Kernel, "wrap a function in kernels.from_callable")
        arguments.choice("interpolation", interpolation, get_args(Interpolation))
        self.kernel = kernel
        self.interpolation = interpolation
        self.input_size = kernel.size
        self._weights: OrderedDict[tuple[Any, ...], tuple[Tensor, ...]] = OrderedDict()
        self._quadrature_error: float | None = None

    def __repr__(self) -> str:
        return f"ConvolutionalFunctional({self.kernel.label})"

    @property
    def quadrature_error(self) -> float | None:
        return self._quadrature_error

    def _respond(self, x: Tensor, t: Tensor) -> Tensor:
        x64 = x.double()
        step = grids.even_step(t)
        if len(t) == 1 or x.numel() == 0:
            y = torch.zeros_like(x64[..., 0])
        elif step is not None:
            newer, older = self._cached(("even", len(t), step), self._even_weights, len(t), step)
            y = _convolve(newer, x64[..., 1:, :]) + _convolve(older, x64[..., :-1, :])
            y = nn.functional.pad(y, (1, 0))
        else:
            times = grids.times(t)
            (weights,) = self._cached(("uneven", (times - times[0]).tobytes()), self._uneven_weights, times)
            y = torch.einsum("nkc,...kc->...n", weights.to(x.device), x64)
        return y.unsqueeze(-1).to(x.dtype)

    def step(self, t: Tensor, x: Tensor) -> Tensor:
        x = self._amplitudes(x)
        edges = np.concatenate([[0.0], grids.times(t).clip(min=0.0)])
        positive = np.diff(edges) > 0
        integral = np.zeros((len(t), self.kernel.size))
        if positive.any():
            integral[positive] = self._moments(edges[:-1][positive], edges[1:][positive]).m0
        return _project(torch.from_numpy(integral.cumsum(axis=0)), x)

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """d/dt H_t(u^x) = rho(t)^T x."""
        x, times = self._amplitudes(x), grids.times(t)
        return _project(torch.from_numpy(self.kernel(times).reshape(len(times), self.kernel.size)), x)

    def _amplitudes(self, x: Tensor) -> Tensor:
        x = arguments.real_tensor("x", x)
        _check_channels("x", x, self.input_size)
        return x

    def _moments(self, left: Array, right: Array) -> quadrature.Moments:
        result = quadrature.moments(self.kernel, left, right)
        self._quadrature_error = max(result.relative_error, self._quadrature_error or 0.0)
        return result

    def _cached(self, key: tuple[Any, ...], compute: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
        if key not in self._weights:
            self._weights[key] = compute(*arguments)
            if len(self._weights) > _CACHED_GRIDS:
                self._weights.popitem(last=False)
        self._weights.move_to_end(key)
        return self._weights[key]

    def _cell_weights(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Weights (cells, d) of the newer and the older sample of each cell of lags tau in [left, right].

        The newer sample sits at tau = left, the older at tau = right: a linear interpolant weighs the older
        one by (tau - left)/(right - left), whose integral is the first moment; a held one takes the older one
        throughout.
        """
        moments = self._moments(left, right)
        older = moments.m1 if self.interpolation == "linear" else moments.m0
        return moments.m0 - older, older

    def _even_weights(self, n: int, step: float) -> tuple[Tensor, ...]:
        lags = step * np.arange(n, dtype=np.float64)
        return tuple(torch.from_numpy(weights) for weights in self._cell_weights(lags[:-1], lags[1:]))

    def _uneven_weights(self, times: Array) -> tuple[Tensor, ...]:
        """(time, time, d): y_n = sum_k weights[n, k]^T x_k."""
        n = len(times)
        if n * n * self.kernel.size > _MAX_UNEVEN_WEIGHTS:
            raise ValueError(
                f"t has {n} unevenly spaced times, expected at most "
                f"{int((_MAX_UNEVEN_WEIGHTS / self.kernel.size) ** 0.5)}; use an even grid or fewer times"
            )
        weights = np.zeros((n, n, self.kernel.size))
        rows, cells = np.tril_indices(n, k=-1)  # row n sees the cells [t_k, t_{k+1}], k < n
        for first in range(0, len(rows), _PAIRS_AT_ONCE):
            row, k = rows[first : first + _PAIRS_AT_ONCE], cells[first : first + _PAIRS_AT_ONCE]
            newer, older = self._cell_weights(times[row] - times[k + 1], times[row] - times[k])
            weights[row, k + 1] += newer
            weights[row, k] += older
        return (torch.from_numpy(weights),)


# psi by name; each is elementwise.
NONLINEARITIES: dict[str, PointwiseFunction] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "square": torch.square,
    "cube": partial(torch.pow, exponent=3),
}


class NonlinearFunctional(StepResponseFunctional):
    """A static nonlinearity of a functional, which keeps its law of memory.

        y(t) = psi(H_t(x)) - psi(0)

    Args:
        functional: H, a functional whose step response is known.
        psi: a name (tanh, sigmoid, relu, square, cube) or an elementwise function of tensors.

    Raises:
        ValueError: another functional, an unknown name, or a psi that changes the shape.

    Example:
        >>> from targets import ConvolutionalFunctional, NonlinearFunctional, kernels
        >>> H = NonlinearFunctional(ConvolutionalFunctional(kernels.polynomial()), "tanh")

    Source: the nonlinear target of [IA] Fig 2; the paper leaves psi open.
    """

    def __init__(self, functional: StepResponseFunctional, psi: str | PointwiseFunction) -> None:
        arguments.instance("functional", functional, StepResponseFunctional, "give a ConvolutionalFunctional")
        self.functional = functional
        self.psi = psi if callable(psi) else NONLINEARITIES[arguments.choice("psi", psi, NONLINEARITIES)]
        self.input_size, self.output_size = functional.input_size, functional.output_size

    def __repr__(self) -> str:
        return f"NonlinearFunctional({getattr(self.psi, '__name__', type(self.psi).__name__)} of {self.functional!r})"

    @property
    def innermost(self) -> StepResponseFunctional:
        return self.functional.innermost

    @property
    def quadrature_error(self) -> float | None:
        return self.functional.quadrature_error

    def _respond(self, x: Tensor, t: Tensor) -> Tensor:
        return self._psi(self.functional._respond(x, t))

    def step(self, t: Tensor, x: Tensor) -> Tensor:
        return self.transform(self.innermost.step(t, x))

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        """d/dt psi(H_t(u^x)) = psi'(H_t(u^x)) d/dt H_t(u^x)."""
        return self.transform_rate(self.innermost.rate(t, x), self.innermost.step(t, x))

    def transform(self, y: Tensor) -> Tensor:
        return self._psi(self.functional.transform(y))

    def transform_rate(self, rate: Tensor, y: Tensor) -> Tensor:
        inner = self.functional.transform(y)
        with torch.enable_grad():
            at = inner if inner.requires_grad else inner.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._psi(at).sum(), at, create_graph=inner.requires_grad)
        return slope * self.functional.transform_rate(rate, y)

    def _psi(self, y: Tensor) -> Tensor:
        transformed = self.psi(y)
        if not isinstance(transformed, Tensor) or transformed.shape != y.shape:
            found = tuple(transformed.shape) if isinstance(transformed, Tensor) else type(transformed).__name__
            raise ValueError(f"psi made {found} of shape {tuple(y.shape)}, expected the same; let it act elementwise")
        return transformed - self.psi(torch.zeros_like(y))


class TeacherFunctional(Functional):
    """Any sequence model as a target: y = module(x), or module(x) - module(0).

    Gradients flow to x where x asks for them, never to the weights of a `torch.nn.Module`. The module runs in
    the mode (training or evaluation) it is in: call `.eval()` on a module with dropout to make a functional
    of it.

    Args:
        module: callable on (batch, time, channel) that returns (batch, time, output) or a tuple that begins
            with it, such as torch.nn.LSTM(batch_first=True); it must be causal.
        input_size: number of input channels, checked where given.
        pass_times: call module(x, t), as the models of odernn want, instead of module(x).
        subtract_zero_input: subtract the response to x = 0, so that H_t(0) = 0.
        options: further arguments of every call of the module, such as {"solver": Exact()}.

    Example:
        >>> import torch
        >>> from targets import TeacherFunctional
        >>> H = TeacherFunctional(torch.nn.LSTM(1, 4, batch_first=True))
        >>> H(torch.ones(2, 5, 1), torch.arange(5.0)).shape
        torch.Size([2, 5, 4])

    Source: the random teachers of [IA] Fig 3 and 12.
    """

    def __init__(
        self,
        module: Callable[..., Any],
        *,
        input_size: int | None = None,
        pass_times: bool = False,
        subtract_zero_input: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(module) or isinstance(module, type):
            raise ValueError(f"module is {arguments.kind_of(module)}, expected a callable on (batch, time, channel)")
        self.module = module
        self.input_size = None if input_size is None else arguments.count("input_size", input_size)
        self.pass_times = pass_times
        self.subtract_zero_input = subtract_zero_input
        if options is not None:
            arguments.instance("options", options, Mapping, 'give {"solver": ...}')
        self.options = dict(options or {})

    def __repr__(self) -> str:
        return f"TeacherFunctional({getattr(self.module, '__name__', type(self.module).__name__)})"

    def _respond(self, x: Tensor, t: Tensor) -> Tensor:
        batch = x.reshape(-1, *x.shape[-2:])
        y = self._run(batch, t)
        if self.subtract_zero_input:
            y = y - self._run(torch.zeros_like(batch[:1]), t)
        return y.reshape(*x.shape[:-2], *y.shape[-2:])

    def _run(self, x: Tensor, t: Tensor) -> Tensor:
        arguments = (x, t) if self.pass_times else (x,)
        if not isinstance(self.module, nn.Module):
            # a callable may hide a module: without a gradient to x there is none to its weights either
            with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
                answer = self.module(*arguments, **self.options)
        else:
            weights = {name: weight.detach() for name, weight in self.module.named_parameters()}
            dtype = next((weight.dtype for weight in weights.values() if weight.is_floating_point()), x.dtype)
            if dtype != x.dtype:
                raise ValueError(f"x is {x.dtype}, the teacher {dtype}, expected the same; convert one with .to(dtype)")
            answer = torch.func.functional_call(self.module, weights, arguments, self.options)
        y = answer[0] if isinstance(answer, tuple) else answer
        if not isinstance(y, Tensor) or y.ndim != 3 or y.shape[:2] != x.shape[:2]:
            found = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(
                f"the teacher made {found} of x {tuple(x.shape)}, "
                f"expected ({x.shape[0]}, {x.shape[1]}, output); set batch_first=True or wrap it"
            )
        return y


def make_target(kernel: str, nonlinearity: str = "none", interpolation: Interpolation = "linear") -> StepResponseFunctional:
    """The functional psi(int rho x) of two names.

    Args:
        kernel: rho, as `kernels.load` reads it: 'polynomial:exponent=1.1'.
        nonlinearity: psi, a name of NONLINEARITIES; 'none' for the linear functional.
        interpolation: of x between its samples.

    Raises:
        ValueError: an unknown name or parameter.

    Example:
        >>> from targets import make_target
        >>> H = make_target("polynomial:exponent=1.1", nonlinearity="tanh")
    """
    functional = ConvolutionalFunctional(kernels.load(kernel), interpolation)
    return functional if nonlinearity == "none" else NonlinearFunctional(functional, nonlinearity)


def _convolve(weights: Tensor, x: Tensor) -> Tensor:
    """y_n = sum_{k <= n} weights_k^T x_{n-k} by FFT, float64.

    Args:
        weights: (time, channel).
        x: (..., time, channel).

    Returns:
        (..., time).
    """
    n = x.shape[-2]
    # a power of two that keeps the circular convolution from wrapping round
    padded = 1 << (2 * n - 1).bit_length()
    spectrum = torch.fft.rfft(weights.to(x.device), padded, dim=-2) * torch.fft.rfft(x, padded, dim=-2)
    return torch.fft.irfft(spectrum.sum(dim=-1), padded, dim=-1)[..., :n]


def _project(rho: Tensor, x: Tensor) -> Tensor:
    """rho (time, d) on amplitudes x (..., d): (..., time, 1) in float64, then the dtype of x."""
    return (x.double() @ rho.to(x.device).mT).unsqueeze(-1).to(x.dtype)


def _check_channels(name: str, x: Tensor, input_size: int | None) -> None:
    if input_size is not None and x.shape[-1:] != (input_size,):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, expected {input_size} channels on the last axis; "
            "match the kernel's size or the model's input"
        )
