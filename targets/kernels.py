"""Memory kernels rho of linear functionals H_t(x) = int_0^t rho(t-s)^T x(s) ds, by name or by callable."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from targets import arguments
from targets.named_objects import named_object

Array = NDArray[np.float64]
# From the fastest to the slowest; "unknown" stands last because nothing may be promised of it.
Decay = Literal["compact", "superexponential", "exponential", "power", "none", "unknown"]

# Times at which a user's callable is tried once, so that a wrong shape is met before any integration.
_TRIAL_TIMES = np.array([0.5, 1.0, 2.0])


@dataclass(frozen=True, eq=False)
class Kernel:
    """A memory kernel rho: [0, inf) -> R^d; rho(t) = 0 for t < 0.

    Args:
        name: registry name; `get(name, **parameters)` rebuilds the kernel.
        rho: float64 times (n,) -> values (n,) for a scalar kernel or (n, d) for a vector one.
        label: formula in plain text.
        decay: law of decay at large times.
        breakpoints: times t > 0 where rho jumps or kinks, or has a feature that a quadrature must not step
            over.
        parameters: JSON values with which the factory `name` was called.
        size: d, the number of input channels.

    Example:
        >>> import numpy as np
        >>> from targets import Kernel
        >>> box = Kernel("box", lambda t: np.where(t < 1, 1.0, 0.0), "1 on [0, 1)", decay="compact", breakpoints=(1.0,))
        >>> box(0.5), box(2.0)
        (1.0, 0.0)
    """

    name: str
    rho: Callable[[Array], Array]
    label: str
    decay: Decay = "unknown"
    breakpoints: tuple[float, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    size: int = 1

    def __post_init__(self) -> None:
        arguments.choice("decay", self.decay, get_args(Decay))
        for key in ("name", "label"):
            arguments.instance(key, getattr(self, key), str, "say how to call it")
        if not callable(self.rho):
            raise ValueError(f"rho is a {type(self.rho).__name__}, expected a function of times (n,); see from_callable")
        arguments.instance("parameters", self.parameters, Mapping, "give those of the factory, or leave it out")
        object.__setattr__(self, "breakpoints", _breakpoints(self.breakpoints))
        object.__setattr__(self, "size", arguments.count("size", self.size))

    def __repr__(self) -> str:
        size = "" if self.size == 1 else f", {self.size} channels"
        return f"Kernel({self.name}: {self.label}, decay {self.decay}{size})"

    @overload
    def __call__(self, t: float) -> Any: ...
    @overload
    def __call__(self, t: Array) -> Array: ...
    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    def __call__(self, t: float | Array | Tensor) -> Any:
        """rho at given times, in the kind they came in; times of any shape.

        Args:
            t: float, numpy array or tensor of times. A tensor's answer has its dtype and device and no
                gradient.

        Returns:
            shape of t for a scalar kernel (d = 1), shape of t + (d,) for a vector one.

        Raises:
            ValueError: t holds NaN, or rho fails or answers a wrong shape.
        """
        if isinstance(t, Tensor):
            arguments.real_tensor("t", t, finite=False)
            values = torch.from_numpy(np.asarray(self(t.detach().cpu().double().numpy())))
            return values.to(device=t.device, dtype=t.dtype if t.is_floating_point() else torch.float64)
        times = arguments.real_tensor("t", t, finite=False).numpy().astype(np.float64, copy=False)
        if np.isnan(times).any():
            raise ValueError(f"t holds NaN, expected times to evaluate kernel {self.name} at; remove it")
        # rho is not asked at t < 0, where a user's formula may not even be defined
        causal = times >= 0
        rho = np.zeros((*times.shape, self.size))
        if causal.any():
            rho[causal] = self.values(times[causal])
        answer = rho[..., 0] if self.size == 1 else rho
        return float(answer) if answer.ndim == 0 else answer

    def values(self, times: Array) -> Array:
        """rho at times (n,) >= 0 with its channel axis always there: (n, d).

        Raises:
            ValueError: rho fails or answers another shape.
        """
        rho = _evaluate(self.rho, self.name, times)
        if rho.ndim == 1:
            rho = rho[:, None]
        if rho.shape != (len(times), self.size):
            raise ValueError(
                f"kernel {self.name} gave shape {rho.shape} for {len(times)} times, expected "
                f"({len(times)}, {self.size}); let rho treat every time alike"
            )
        return rho


def _evaluate(rho: Callable[[Array], Array], name: str, times: Array) -> Array:
    """rho(times) as a real float64 array (n,) or (n, d); an infinite rho(0) passes without a warning."""
    try:
        with np.errstate(all="ignore"):
            raw = np.asarray(rho(times))
    except Exception as error:
        raise ValueError(
            f"kernel {name} failed on an array of times ({type(error).__name__}: {error}); "
            "write rho with numpy functions that work elementwise"
        ) from error
    if not (np.issubdtype(raw.dtype, np.floating) or np.issubdtype(raw.dtype, np.integer)):
        raise ValueError(f"kernel {name} gave values of type {raw.dtype}, expected real numbers")
    if raw.ndim not in (1, 2) or len(raw) != len(times):
        raise ValueError(
            f"kernel {name} gave shape {raw.shape} for times of shape {times.shape}, expected "
            f"({len(times)},) or ({len(times)}, d); write rho with numpy functions that work elementwise"
        )
    return raw.astype(np.float64, copy=False)


# --- the kernels of the papers -----------------------------------------------------------------------------


def exponential(rate: float | None = None, base: float | None = None) -> Kernel:
    """rho(t) = e^{-rate t}, or base^t. Without arguments e^{-t}.

    Args:
        rate: rate of decay, 1/time, > 0.
        base: factor of decay per unit time, in (0, 1); instead of `rate`.

    Source: [IA] Fig 1a (0.9^t).
    """
    if rate is not None and base is not None:
        raise ValueError(f"both rate = {rate} and base = {base} came, expected one of them; leave the other out")
    if base is not None:
        base = arguments.number("base", base, above=0, below=1)
        label, parameters = f"{base:g}^t", {"base": base}
        rho = partial(_exponential, rate=-math.log(base))
    else:
        rate = arguments.number("rate", 1.0 if rate is None else rate, above=0)
        label, parameters = f"e^-{_factor(rate)}t", {"rate": rate}
        rho = partial(_exponential, rate=rate)
    return Kernel("exponential", rho, label, decay="exponential", parameters=parameters)


def polynomial(exponent: float = 1.5, scale: float = 1.0) -> Kernel:
    """rho(t) = (1 + t/scale)^-exponent.

    Args:
        exponent: > 0.
        scale: time, > 0, over which the decay sets in.

    Source: [IA] Fig 1b (exponent 1.1), Fig 2 (1.5).
    """
    exponent, scale = arguments.number("exponent", exponent, above=0), arguments.number("scale", scale, above=0)
    inner = f"(1+{_factor(1 / scale)}t)"
    return Kernel(
        "polynomial",
        partial(_polynomial, exponent=exponent, scale=scale),
        f"{inner}^-{exponent:g}",
        decay="power",
        parameters={"exponent": exponent, "scale": scale},
    )


def shift(start: float = 9.0, stop: float = 11.0) -> Kernel:
    """rho(t) = 1 for start < t < stop, else 0: the mean of the input over a window in the past.

    Args:
        start, stop: times, 0 <= start < stop.
    """
    start, stop = arguments.number("start", start), arguments.number("stop", stop)
    if not 0 <= start < stop:
        raise ValueError(f"start = {start:g} and stop = {stop:g} came, expected 0 <= start < stop; exchange them")
    return Kernel(
        "shift",
        partial(_shift, start=start, stop=stop),
        f"1 on {start:g} < t < {stop:g}",
        decay="compact",
        breakpoints=tuple(time for time in (start, stop) if time > 0),
        parameters={"start": start, "stop": stop},
    )


def two_part(center: float = 9.0) -> Kernel:
    """rho(t) = e^{-t} + e^{-(t-center)^2}: a recent and a remote memory.

    Args:
        center: time of the remote memory, >= 0.
    """
    center = arguments.number("center", center, least=0)
    return Kernel(
        "two_part",
        partial(_two_part, center=center),
        f"e^-t + e^-(t-{center:g})^2",
        decay="exponential",
        # smooth, but the bump is of width 1: long cells are split here so that no rule steps over it
        breakpoints=(center,) if center > 0 else (),
        parameters={"center": center},
    )


def airy(shift: float = 6.0) -> Kernel:
    """rho(t) = Ai(t - shift): oscillates, then falls like e^{-(2/3)(t-shift)^{3/2}}.

    Args:
        shift: time at which the oscillations end, >= 0.
    """
    shift = arguments.number("shift", shift, least=0)
    if not np.isfinite(_airy(np.zeros(1), shift)).all():
        raise ValueError(f"shift is {shift:g}, expected a time at which Ai(-shift) can be computed; give for example 6")
    return Kernel(
        "airy",
        partial(_airy, shift=shift),
        f"Ai(t-{shift:g})",
        decay="superexponential",
        parameters={"shift": shift},
    )


def sine(frequency: float = 1.0) -> Kernel:
    """rho(t) = sin(frequency t), which does not decay.

    Args:
        frequency: angular frequency, radian/time, > 0.
    """
    frequency = arguments.number("frequency", frequency, above=0)
    return Kernel(
        "sine",
        partial(_sine, frequency=frequency),
        f"sin({_factor(frequency)}t)",
        decay="none",
        parameters={"frequency": frequency},
    )


# Functions of the module rather than closures, so that kernels can be pickled and sent to other processes.
def _exponential(t: Array, rate: float) -> Array:
    return np.exp(-rate * t)


def _polynomial(t: Array, exponent: float, scale: float) -> Array:
    return (1 + t / scale) ** -exponent


def _shift(t: Array, start: float, stop: float) -> Array:
    return ((start < t) & (t < stop)).astype(np.float64)


def _two_part(t: Array, center: float) -> Array:
    return np.exp(-t) + np.exp(-((t - center) ** 2))


# Ai is 0 in float64 from 108 on, but not a number from some 1e6 on, where kernels on [0, inf) are looked at, too.
_AIRY_GONE = 1e3


def _airy(t: Array, shift: float) -> Array:
    from scipy.special import airy  # slow to import

    return np.asarray(airy(np.minimum(t - shift, _AIRY_GONE))[0])


def _sine(t: Array, frequency: float) -> Array:
    return np.sin(frequency * t)


def _stacked(t: Array, kernels: tuple[Kernel, ...]) -> Array:
    return np.concatenate([kernel.values(t) for kernel in kernels], axis=1)


# --- kernels made of other things --------------------------------------------------------------------------


def from_callable(
    f: Callable[[Array], Array],
    name: str | None = None,
    breakpoints: Sequence[float] = (),
    decay: Decay = "unknown",
) -> Kernel:
    """A user's rho. It may be infinite at t = 0 if it is integrable there (t^-0.5, -log t).

    Args:
        f: float64 times (n,) >= 0 -> (n,), or (n, d) for an input of d channels; elementwise in time.
        name: how to call it; the function's name by default. `get` does not know it: see `load` for that.
        breakpoints: times > 0 where f jumps or kinks. Undeclared ones are found if wider than a grid cell's
            nodes.
        decay: its law of decay, where known.

    Raises:
        ValueError: f is not callable, fails on an array, or gives another shape.
    """
    if not callable(f):
        raise ValueError(f"the kernel is a {type(f).__name__}, expected a callable rho(t); give a function")
    breakpoints = _breakpoints(breakpoints)
    if name is not None:
        arguments.instance("name", name, str, "say how to call it, or leave it out")
    label = str(name or getattr(f, "__name__", type(f).__name__))
    trial = _evaluate(f, label, _TRIAL_TIMES)
    size = 1 if trial.ndim == 1 else trial.shape[1]
    return Kernel(label, f, label, decay, breakpoints, size=size)


def stack(kernels: Sequence[Kernel | Mapping[str, Any]]) -> Kernel:
    """A vector kernel rho = (rho_1, ..., rho_d), one scalar kernel for each input channel.

    Args:
        kernels: scalar kernels, or {"name": ..., "parameters": {...}} as a configuration file holds them.

    Raises:
        ValueError: there is none, or one of them is not a scalar kernel.
    """
    if not isinstance(kernels, Sequence) or isinstance(kernels, str):
        raise ValueError(f"kernels is a {type(kernels).__name__}, expected a list; give stack([exponential(), polynomial()])")
    parts = tuple(get(part["name"], **part.get("parameters", {})) if isinstance(part, Mapping) else part for part in kernels)
    if not parts:
        raise ValueError("no kernel came, expected at least one; give stack([exponential(), polynomial()])")
    for part in parts:
        if not isinstance(part, Kernel) or part.size != 1:
            found = f"size {part.size}" if isinstance(part, Kernel) else type(part).__name__
            raise ValueError(f"stack got a part of {found}, expected scalar kernels; stack them one by one")
    order = get_args(Decay)
    return Kernel(
        "stack",
        partial(_stacked, kernels=parts),
        ", ".join(part.label for part in parts),
        decay=max((part.decay for part in parts), key=order.index),  # the slowest rules
        breakpoints=tuple({time for part in parts for time in part.breakpoints}),
        parameters={"kernels": [{"name": part.name, "parameters": dict(part.parameters)} for part in parts]},
        size=len(parts),
    )


def custom(spec: str) -> Kernel:
    """A user's kernel from code on disk: "package.module:attribute" or "path/to/file.py:attribute".

    Args:
        spec: names a callable rho(t), a `Kernel`, or a function without arguments that returns either.

    Raises:
        ValueError: no such file, module or attribute; it fails to run, or is none of these.
    """
    found = named_object(spec, KERNELS)
    if not isinstance(found, Kernel) and not callable(found):
        raise ValueError(f"{spec} is a {type(found).__name__}, expected a callable rho(t) or a Kernel")
    kernel = found if isinstance(found, Kernel) else from_callable(found, name=spec.rpartition(":")[2])
    return replace(kernel, name="custom", parameters={"spec": spec})


# --- the registry ------------------------------------------------------------------------------------------

KERNELS: dict[str, Callable[..., Kernel]] = {
    "exponential": exponential,
    "polynomial": polynomial,
    "shift": shift,
    "two_part": two_part,
    "airy": airy,
    "sine": sine,
}
# Factories that need an argument: known to `get`, so that every kernel can be rebuilt from its configuration.
_COMPOSED: dict[str, Callable[..., Kernel]] = {"stack": stack, "custom": custom}


def get(name: str, **parameters: Any) -> Kernel:
    """The kernel of that name: `get(kernel.name, **kernel.parameters)` rebuilds `kernel`.

    Raises:
        ValueError: unknown name or parameter (the message lists the known ones), or a value out of range.
    """
    composed = isinstance(name, str) and name in _COMPOSED
    factory = _COMPOSED[name] if composed else KERNELS[arguments.choice("kernel", name, KERNELS)]
    accepted = list(inspect.signature(factory).parameters)
    for parameter in parameters:
        arguments.choice(f"parameter of kernel {name}", parameter, accepted)
    return factory(**parameters)


def names_code(spec: str) -> bool:
    """Whether `load` would run code for a kernel of that text: "package.module:rho" or "path/to/file.py:rho"."""
    head, colon, tail = spec.partition(":")
    return head not in KERNELS and bool(colon) and "=" not in tail


def load(spec: str) -> Kernel:
    """A kernel from one line of text, as a command line gives it.

    Args:
        spec: "polynomial", "polynomial:exponent=1.1,scale=10", "package.module:rho" or "path/to/file.py:rho"
            (see `custom`).

    Raises:
        ValueError: the text is none of these; the message lists the choices.
    """
    arguments.instance("spec", spec, str, "give for example 'polynomial:exponent=1.1'")
    if names_code(spec):
        return custom(spec)
    head, _, tail = spec.partition(":")
    parameters: dict[str, float] = {}
    for assignment in filter(None, tail.split(",")):
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} in {spec!r} is no parameter, expected key=value; give {head}:key=value")
        try:
            parameters[key.strip()] = float(value)
        except ValueError:
            raise ValueError(f"{key.strip()} is {value!r}, expected a number; give for example {key.strip()}=1.5") from None
    return get(head, **parameters)


def _breakpoints(times: Any) -> tuple[float, ...]:
    """Sorted times of jumps and kinks."""
    found = arguments.real_tensor("breakpoints", times).double().numpy()
    if found.ndim != 1 or not (found > 0).all():
        raise ValueError(f"breakpoints are {times!r}, expected a list of finite times > 0; leave t = 0 out")
    return tuple(sorted(found.tolist()))


def _factor(number: float) -> str:
    """A factor in front of t in a formula; a factor of one is not written."""
    return "" if number == 1 else f"{number:g}"
