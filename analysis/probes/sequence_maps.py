"""Systems as maps between sequences, checked for shapes and causality."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odernn import SequenceModel
from targets import Functional, TeacherFunctional, arguments

from .adapted import Adapted, first_tensor

# Samples of one sequence beyond which no memory holds it.
MOST_SAMPLES = 2**24
# Length and tolerance (relative to the output) of the trial for causality.
_TRIAL_LENGTH = 8
_TRIAL_ROUNDINGS = 1e4


@dataclass(frozen=True)
class SequenceMap:
    """A map from sequences (batch, time, d) to sequences (*ensemble, batch, time, output).

    Args:
        run: the map.
        name: for legends.
        delayed: whether output k has not consumed sample k.
        input_size: d.
        dtype, device: of the inputs it takes.
        dt: time of one sample.
        ensemble: leading axes of the output.
        linear: whether the map is linear up to its zero-input response.
        quantised: whether it computes in fewer digits than its outputs have.
    """

    run: Callable[[Tensor], Tensor]
    name: str
    delayed: bool
    input_size: int
    dtype: torch.dtype
    device: torch.device
    dt: float
    ensemble: tuple[int, ...] = ()
    linear: bool = False
    quantised: bool = False


def of_outputs(model: SequenceModel, dt: float) -> SequenceMap:
    """The outputs of a discrete model, with gradients to the input only."""
    frozen = copy.deepcopy(model).requires_grad_(False)

    def run(x: Tensor) -> Tensor:
        return frozen.respond(x, _sample_times(x, dt), check=False).y

    return _of_model(model, dt, run, delayed=True)


def of_states(model: SequenceModel, dt: float) -> SequenceMap:
    """The states of a model, each once it has consumed the sample of the same index, held for dt."""

    def run(x: Tensor) -> Tensor:
        # one sample more, which has no effect, makes room for the initial state
        x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        return model.respond(x, _sample_times(x, dt), interpolation="hold").solution.h[:, 1:]

    return _of_model(model, dt, run, delayed=False)


def _of_model(model: SequenceModel, dt: float, run: Callable[[Tensor], Tensor], delayed: bool) -> SequenceMap:
    linear = model.field().affine
    name, weight = type(model).__name__, model.c
    return SequenceMap(run, name, delayed, model.input_size, weight.dtype, weight.device, dt, model.ensemble, linear)


def _sample_times(x: Tensor, dt: float) -> Tensor:
    return dt * torch.arange(x.shape[-2], dtype=torch.float64, device=x.device)


def sample_index(times: Tensor, dt: float | None) -> tuple[float, Tensor]:
    """The time of one sample and the sample each time falls on, (time,); the first sample of a probe is number 0.

    Raises:
        ValueError: times that are no multiples of dt.
    """
    if dt is None:
        steps = times.double().diff()
        dt = float(steps.min()) if steps.numel() else 1.0
    dt = arguments.number("dt", dt, above=0)
    index = (times.double() / dt).round()
    # times written in single precision, or as sums of dt, are multiples of it up to this
    deviation = float((times.double() / dt - index).abs().max())
    if not deviation <= 1e-3 or float(index.abs().max()) > arguments.MOST:
        raise ValueError(
            f"a sampled system responds at multiples of its sample time dt = {dt:g}, got times up to {deviation:.2g} dt off "
            "them: give times that are, or dt"
        )
    if not (index.diff() > 0).all():
        raise ValueError(f"times are closer together than a sample of dt = {dt:g}: give times a sample apart, or a smaller dt")
    return dt, index.long()


def of_system(system: Any, dt: float, like: Tensor, input_size: int | None) -> SequenceMap:
    """A torch module, a callable or a functional as it is.

    Args:
        system: as in `memory_function`, but for the models of odernn.
        dt: time of one sample.
        like: dtype and device of the inputs to a system without weights.
        input_size: d of a callable that does not tell.

    Raises:
        ValueError: not callable, not causal, or of another shape, with the reason.
    """
    if not callable(system) or isinstance(system, type):
        raise ValueError(
            f"system: {arguments.kind_of(system)} has no memory function: give a model, a functional, a torch module, or a "
            "callable on (batch, time, channel)"
        )
    call: Callable[[Tensor], Any] = system
    module = system
    delayed = False
    size = input_size = None if input_size is None else arguments.count("input_size", input_size)
    name = getattr(system, "__name__", type(system).__name__)
    if isinstance(system, Functional):
        # a functional of the interpolated input: the output at t_k knows nothing of what comes after t_k
        delayed = not isinstance(system, TeacherFunctional) or system.pass_times
        module = getattr(system, "module", system)
        size = system.input_size or getattr(module, "input_size", None) or input_size

        def call(x: Tensor) -> Tensor:
            return system(x, _sample_times(x, dt))

    elif isinstance(system, nn.RNNBase):
        require_causal(system)
        size = system.input_size
        call = system if system.batch_first else _time_first(system)
    elif isinstance(system, nn.RNNCellBase):
        size, call = system.input_size, Adapted(system)
    elif isinstance(system, nn.TransformerEncoder | nn.TransformerEncoderLayer):
        attention: Any = (system if isinstance(system, nn.TransformerEncoderLayer) else system.layers[0]).self_attn
        size = attention.embed_dim

        def masked(x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1 if attention.batch_first else 0], x.device, x.dtype)
            return system(x, mask, is_causal=True)

        call = masked if attention.batch_first else _time_first(masked)
    if size is None:
        attribute = getattr(system, "input_size", None)
        size = attribute if isinstance(attribute, int) and attribute > 0 else 1
    weights = module.parameters() if isinstance(module, nn.Module) else ()
    weight = next((weight for weight in weights if weight.is_floating_point()), None)
    like = like if weight is None else weight

    def run(x: Tensor) -> Tensor:
        with _evaluating(module):
            y = call(x)
        return _first_tensor(y, x, name)

    try:
        _try(run, size, like, name)
    except ValueError:
        if weight is not None or not isinstance(module, nn.Module) or like.dtype != torch.float64:
            raise
        like = like.float()  # weights that are no floating-point numbers: quantised modules take float32
        _try(run, size, like, name)
    return SequenceMap(run, name, delayed, size, like.dtype, like.device, dt, quantised=_is_quantised(module))


def _is_quantised(module: Any) -> bool:
    parts = module.modules() if isinstance(module, nn.Module) else ()
    return any("quantized" in type(part).__module__ or "Quantized" in type(part).__name__ for part in parts)


def require_causal(module: nn.RNNBase) -> None:
    """Refuses a module that runs backwards in time too."""
    if module.bidirectional:
        raise ValueError(
            f"a bidirectional {type(module).__name__} is not causal: its output at t depends on inputs after t, so it has "
            "neither a memory function nor a state equation; give the module with bidirectional=False"
        )


def _time_first(module: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def call(x: Tensor) -> Any:
        y = module(x.transpose(0, 1))
        return (y[0] if isinstance(y, tuple) else y).transpose(0, 1)

    return call


def _first_tensor(y: Any, x: Tensor, name: str) -> Tensor:
    found = first_tensor(y)
    if found is None:
        raise ValueError(
            f"{name} returned a {type(y).__name__}, expected (batch, time, channel) or a tuple or dict that begins with it: "
            "return that"
        )
    y = found
    if not y.is_floating_point():
        raise ValueError(f"{name} returned {y.dtype} values, expected a floating-point tensor: return y.double()")
    if y.ndim == 2:
        y = y.unsqueeze(-1)
    if y.ndim != 3 or y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{name} returned shape {tuple(y.shape)} for an input {tuple(x.shape)}, expected (batch, time, channel) with the "
            "same batch and time: return an output for every time"
        )
    return y


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """The module without dropout, and as it was afterwards."""
    if not isinstance(module, nn.Module):
        yield
        return
    were = [(part, part.training) for part in module.modules()]
    with suppress(NotImplementedError):  # an exported program is what it was when it was exported
        module.eval()
    try:
        # cuDNN has no backward pass in evaluation mode
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for part, training in were:
            part.training = training


def _is_ours(error: Exception) -> bool:
    """Whether this project raised it, about shapes say, and not a system of the user's."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("analysis", "odernn", "targets")


@torch.no_grad()
def _try(run: Callable[[Tensor], Tensor], size: int, like: Tensor, name: str) -> None:
    """One small run, so that a wrong shape, an input of the wrong size and a system that is not causal are reported in the user's
    terms."""
    dtype = like.dtype
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, _TRIAL_LENGTH, size, generator=generator, dtype=torch.float64).to(like)
    x[1, : _TRIAL_LENGTH // 2] = x[0, : _TRIAL_LENGTH // 2]
    try:
        y = run(x)
    except Exception as error:
        if isinstance(error, ValueError) and _is_ours(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        raise ValueError(
            f"{name} failed on an input (batch, time, channel) = (2, {_TRIAL_LENGTH}, {size}) of {dtype} "
            f"({type(error).__name__}: {reason}): give input_size, or wrap it in a function that takes such an input"
        ) from error
    if not torch.isfinite(y).all():
        raise ValueError(
            f"{name} gave NaN or infinite outputs for random inputs of size 1, expected finite ones: repair the system"
        )
    past = y[:, : _TRIAL_LENGTH // 2]
    tolerance = _TRIAL_ROUNDINGS * torch.finfo(dtype).eps * max(float(y.abs().max()), torch.finfo(dtype).tiny)
    if not float((past[0] - past[1]).abs().max()) <= tolerance:
        raise ValueError(
            f"{name} is not causal (or is random): its outputs changed where only later inputs did, so it has no memory "
            "function; give a transformer a causal mask, and call .eval() on modules with dropout that a function hides"
        )
