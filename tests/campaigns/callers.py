"""Bad arguments to every public function: the right answer, or one clear line.

The calls that are spoilt stand in `_target_calls`, `_model_calls` and `_analysis_calls`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import math
import signal
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from targets import Kernel

from ._analysis_calls import analysis_calls, fit_calls
from ._calls import Call, finished
from ._model_calls import model_calls, part_calls
from ._target_calls import target_calls
from .campaign import Outcomes

# A spoilt call that takes longer than this hangs.
_SECONDS = 20
# A line that a reader takes in at once.
_LONGEST_LINE = 450
_HUGE = 10**30


class _Refused:
    """In place of the right value of an argument: there is none, so the call has to be refused."""


_NONE_RIGHT = _Refused()


@dataclasses.dataclass(frozen=True)
class Spoilt:
    """A bad value of one argument.

    value: what is given.
    right: the value it must have been taken for; `_NONE_RIGHT` where it means nothing; None where it may mean something (a rate
        of 1e30), so that an answer counts unless it holds a NaN.
    """

    kind: str
    value: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Callers:
    name: str
    calls: list[Call]
    full: int = 1000
    short: int = 7

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        generator = np.random.default_rng(seed)
        for call in self.calls:
            tries = [(argument, spoilt) for argument in call.make() for spoilt in _spoil(call, argument, generator)]
            for k in sorted(generator.permutation(len(tries))[:size]):
                argument, spoilt = tries[k]
                outcome, detail = _judge(call, argument, spoilt)
                failed = outcome in ("silent", "unhelpful", "hangs", "warns")
                known = (argument, spoilt.kind) in call.known
                outcomes.count(
                    call.name,
                    "known" if failed and known else outcome,
                    f"{argument} {spoilt.kind}: {detail}" if failed and not known else None,
                )
        return outcomes


def _spoil(call: Call, argument: str, generator: np.random.Generator) -> Iterator[Spoilt]:
    value = call.make()[argument]
    default = _default(call, argument)
    if value is not None and default is not None:
        yield Spoilt("none", None, _NONE_RIGHT)
    if isinstance(value, Tensor) and value.is_floating_point():
        yield from _spoilt_tensors(value, generator)
    elif isinstance(value, bool):
        yield Spoilt("string", "no such", None)
    elif isinstance(value, int | float):
        yield from _spoilt_numbers(value)
    elif isinstance(value, str):
        yield Spoilt("unknown name", "no such", _NONE_RIGHT)
        yield Spoilt("empty name", "", _NONE_RIGHT)
        yield Spoilt("number", 3, _NONE_RIGHT)
        yield Spoilt("list", [value], _NONE_RIGHT)
    elif isinstance(value, tuple | list):
        yield Spoilt("empty", type(value)(), None if call.name.endswith("Kernel") else _NONE_RIGHT)
        yield Spoilt("string", "no such", _NONE_RIGHT)
        yield Spoilt("number", 3, _NONE_RIGHT if isinstance(value[0], int | float) is False else None)
        yield Spoilt("strings", ["no such"], _NONE_RIGHT)
        yield Spoilt("nones", [None], _NONE_RIGHT)
        if isinstance(value[0], int | float):
            yield Spoilt("nan", [math.nan], _NONE_RIGHT)
            yield Spoilt("array", np.asarray(value), value)
            yield Spoilt("tensor", torch.tensor(value), value)
    elif callable(value) or dataclasses.is_dataclass(value):
        yield Spoilt("string", "no such", _NONE_RIGHT)
        yield Spoilt("number", 3.0, _NONE_RIGHT)
        yield Spoilt("tensor", torch.zeros(3), _NONE_RIGHT)
        yield Spoilt("list", [value], _NONE_RIGHT)
        yield Spoilt("class", type(value), _NONE_RIGHT)
        if inspect.isfunction(value):
            yield Spoilt("returns none", lambda *_: None, _NONE_RIGHT)
            yield Spoilt("raises", _raises, _NONE_RIGHT)
            yield Spoilt("scalar", lambda *_: torch.tensor(1.0), _NONE_RIGHT)
            yield Spoilt("nans", lambda t, *_: t * math.nan, _NONE_RIGHT)


def _raises(*_: Any) -> None:
    raise KeyError("a user's own mistake")


def _spoilt_tensors(x: Tensor, generator: np.random.Generator) -> Iterator[Spoilt]:
    position = tuple(int(generator.integers(size)) for size in x.shape)
    for kind, bad in (("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf)):
        spoilt = x.clone()
        spoilt[position] = bad
        yield Spoilt(kind, spoilt, _NONE_RIGHT)
    yield Spoilt("string", "no such", _NONE_RIGHT)
    yield Spoilt("strings", ["a", "b"], _NONE_RIGHT)
    yield Spoilt("list", x.tolist(), x)
    yield Spoilt("ragged list", [[1.0], [1.0, 2.0]], _NONE_RIGHT)
    yield Spoilt("array", x.numpy().copy(), x)
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    yield Spoilt("read-only array", frozen, x)
    yield Spoilt("array backwards", np.ascontiguousarray(x.numpy()[::-1])[::-1], x)
    yield Spoilt("object array", x.numpy().astype(object), x)
    yield Spoilt("not contiguous", torch.stack([x, x], -1)[..., 0], x)
    yield Spoilt("with gradient", x.clone().requires_grad_(), x)
    yield Spoilt("integers", (10 * x).round().long(), (10 * x).round())
    yield Spoilt("bool", x > x.mean(), (x > x.mean()).to(x))
    yield Spoilt("half", x.half(), x.half().to(x))
    yield Spoilt("bfloat16", x.bfloat16(), x.bfloat16().to(x))
    yield Spoilt("single", x.float(), x.float().to(x))
    yield Spoilt("complex", torch.complex(x, torch.ones_like(x)), _NONE_RIGHT)
    yield Spoilt("meta", x.to("meta"), _NONE_RIGHT)
    yield Spoilt("sparse", x.to_sparse(), x)
    yield Spoilt("scalar", x.sum(), _NONE_RIGHT)
    yield Spoilt("number", 3.0, _NONE_RIGHT)
    yield Spoilt("one rank more", x.unsqueeze(0), _NONE_RIGHT)
    for axis in range(x.ndim):
        name = f"axis {axis - x.ndim}"
        if x.ndim > 1:
            yield Spoilt(f"{name} missing", x.select(axis, 0), _NONE_RIGHT)
        yield Spoilt(f"{name} empty", x.narrow(axis, 0, 0), _NONE_RIGHT)
        yield Spoilt(f"{name} of one", x.narrow(axis, 0, 1), _NONE_RIGHT if x.shape[axis] > 1 else x)
        yield Spoilt(f"{name} longer", torch.cat([x, x + 1e3], axis), _NONE_RIGHT)


def _spoilt_numbers(value: float) -> Iterator[Spoilt]:
    yield Spoilt("nan", math.nan, _NONE_RIGHT)
    yield Spoilt("inf", math.inf, None)
    yield Spoilt("-inf", -math.inf, _NONE_RIGHT)
    yield Spoilt("zero", 0, None)
    yield Spoilt("negative", -value if value > 0 else -1, None)
    yield Spoilt("huge", _HUGE, None)
    yield Spoilt("huge float", 1e30, None)
    yield Spoilt("fraction", 1.5, None if isinstance(value, float) else _NONE_RIGHT)
    yield Spoilt("complex", 1j, _NONE_RIGHT)
    yield Spoilt("string", "no such", _NONE_RIGHT)
    yield Spoilt("list", [value], _NONE_RIGHT)
    yield Spoilt("numpy", np.asarray(value)[()], value)
    yield Spoilt("tensor", torch.tensor(value), value)
    yield Spoilt("tensors", torch.tensor([value, value]), _NONE_RIGHT)
    yield Spoilt("bool", True, 1)


def _default(call: Call, argument: str) -> Any:
    try:
        parameter = inspect.signature(call.function).parameters.get(argument)
    except (TypeError, ValueError):
        return inspect.Parameter.empty
    return inspect.Parameter.empty if parameter is None else parameter.default


class _Hangs(BaseException):
    pass


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def hangs(*_: Any) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _judge(call: Call, argument: str, spoilt: Spoilt) -> tuple[str, str]:
    """The outcome: right, accepted (an answer that may be meant), refused, or one of the faults."""
    arguments = {**call.make(), argument: spoilt.value}
    try:
        with _limited(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("error")
            answer = call.function(**arguments)
            parts = list(_numbers(answer))
    except _Hangs:
        return "hangs", f"longer than {_SECONDS} s"
    except Warning as warning:
        return "warns", f"{type(warning).__name__}: {str(warning).splitlines()[0][:160]}"
    except Exception as error:
        return _judge_error(call, argument, error)
    if isinstance(spoilt.right, _Refused):
        if spoilt.kind.endswith("empty") and parts and all(part.size == 0 for part in parts):
            return "right", ""
        if spoilt.kind in ("nan", "inf", "-inf", "nans") and any(not np.isfinite(part).all() for part in parts):
            return "right", "visible in the answer"
        return "silent", f"gave {_short(answer)}"
    if spoilt.right is None:
        holds_nan = any(np.isnan(part).any() for part in parts)
        return ("silent", f"gave NaN: {_short(answer)}") if holds_nan else ("accepted", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = list(_numbers(call.function(**{**call.make(), argument: spoilt.right})))
        except Exception as error:
            return "silent", f"gave {_short(answer)}, and for the value as it is meant {type(error).__name__}: {str(error)[:120]}"
    coarse = 0.05 if spoilt.kind in ("half", "bfloat16") else 1e-3  # answers may come in the argument's precision
    same = len(parts) == len(expected) and all(_same(one, other, coarse) for one, other in zip(parts, expected))
    return ("right", "") if same else ("silent", f"gave {_short(parts)}, expected {_short(expected)}")


def _judge_error(call: Call, argument: str, error: Exception) -> tuple[str, str]:
    line = str(error)
    names = (argument, *call.names.get(argument, ()))
    said = f"{type(error).__name__}: {line.splitlines()[0][:200] if line else ''}"
    if not isinstance(error, ValueError | ArithmeticError | IndexError | TypeError) or type(error) is ZeroDivisionError:
        return "unhelpful", said
    if type(error) is TypeError and "keyword" not in line and "constructor" not in line:
        return "unhelpful", said
    if type(error) is IndexError and "index" not in line:
        return "unhelpful", said
    if "\n" in line or len(line) > _LONGEST_LINE or not any(name in line for name in names):
        return "unhelpful", said
    return "refused", said


def _same(one: np.ndarray, other: np.ndarray, coarse: float) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=coarse, atol=coarse / 10, equal_nan=True)


def _short(value: Any) -> str:
    return " ".join(repr(value).split())[:160]


def _numbers(value: Any) -> Iterator[np.ndarray]:
    """Everything in an answer that is a number."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.to_dense() if value.is_sparse else value
        yield np.asarray(value.to(torch.complex128 if value.is_complex() else torch.float64))
    elif isinstance(value, np.ndarray):
        number = np.complex128 if np.iscomplexobj(value) else np.float64
        yield value.astype(number) if value.dtype.kind in "biufc" else np.asarray(math.nan)
    elif isinstance(value, bool | int | float | np.number):
        yield np.asarray(float(value))
    elif isinstance(value, Kernel):
        yield np.asarray(value(np.array([0.0, 0.1, 0.5, 1.0, 2.0, 9.5])))
    elif isinstance(value, nn.Module):
        for weight in value.state_dict().values():
            yield from _numbers(weight)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for entry in dataclasses.fields(value):
            yield from _numbers(getattr(value, entry.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)


CAMPAIGNS = (
    Callers("callers", finished([*target_calls(), *part_calls(), *analysis_calls()])),
    Callers("model-callers", finished([*model_calls(), *fit_calls()])),
)
