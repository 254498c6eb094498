"""The one place where models, functionals, torch modules and callables are told apart."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from odernn import SequenceModel, Solver
from targets import ConvolutionalFunctional, StepResponseFunctional, TeacherFunctional, arguments

from ..dynamics import Dynamics, FieldDynamics, ModelDynamics, ModuleDynamics
from . import sequence_maps
from .base import ProbedSystem
from .continuous import ContinuousSystem
from .functional import KnownFunctional
from .sampled import SampledSystem
from .sequence_maps import SequenceMap, sample_index

Sized = TypeVar("Sized", ProbedSystem, SequenceMap)


def probed(
    system: Any,
    times: Tensor,
    *,
    warmup: float = 0.0,
    hold: float | None = None,
    solver: Solver | None = None,
    dt: float | None = None,
    input_size: int | None = None,
) -> ProbedSystem:
    """How a system responds to probes; arguments as in `memory_function`.

    Raises:
        ValueError: no system, or one that has no memory function (not causal, wrong shapes), with the reason.
    """
    model = _model(system)
    if solver is not None and (model is None or model.is_map):
        raise ValueError(f"solver is for the continuous models of odernn, got a {type(system).__name__}: leave it out")
    if model is not None and not model.is_map:
        return _sized(ContinuousSystem(model, times, warmup, hold, solver), input_size)
    if isinstance(system, StepResponseFunctional) and isinstance(system.innermost, ConvolutionalFunctional):
        return _sized(KnownFunctional(system, system.innermost, times, hold), input_size)
    dt, samples = sample_index(times, dt)
    mapping = sequence_maps.of_system(system, dt, times, input_size) if model is None else sequence_maps.of_outputs(model, dt)
    return SampledSystem(_sized(mapping, input_size), samples, warmup, hold)


def states(system: Any, dt: float, like: Tensor, input_size: int | None = None) -> SequenceMap:
    """The states of a model, the outputs of any other system; arguments as in `sequence_maps.of_system`.

    Raises:
        ValueError: no system, an ensemble, or one without causal outputs, with the reason.
    """
    model = _model(system)
    if model is None:
        return _sized(sequence_maps.of_system(system, dt, like, input_size), input_size)
    return _sized(sequence_maps.of_states(_single(model), dt), input_size)


def differentiable(system: Any, times: Tensor, like: Tensor, input_size: int | None = None) -> SequenceModel | SequenceMap:
    """A continuous model as it is, any other system as a map between samples at `times`; arguments as in `memory_function`.

    Args:
        like: the input, (..., time, d).

    Raises:
        ValueError: no system, or one that is not causal, with the reason.
    """
    model = _model(system)
    if model is not None and not model.is_map:
        return model
    dt, _ = sample_index(times - times[0], None)
    if model is not None:
        return _sized(sequence_maps.of_outputs(model, dt), input_size)
    # a callable that does not tell takes as many channels as the input has
    size = like.shape[-1] if input_size is None else input_size
    return _sized(sequence_maps.of_system(system, dt, like, size), input_size)


def dynamics(system: Any, *, size: int | None = None, dt: float = 1.0) -> Dynamics:
    """The state equation of a system.

    Args:
        system: a model of `odernn` without ensemble axes; torch.nn.RNN, GRU or LSTM (not bidirectional; the state of an LSTM is
            (h, c), layer after layer); a `TeacherFunctional` of these; or a vector field F(h) on (n, size), a flow without input.
        size: of the state of a vector field.
        dt: time of one step of a map.

    Raises:
        ValueError: none of these, or not fit for it.
    """
    dt = arguments.number("dt", dt, above=0)
    model = _model(system)
    if model is not None:
        return ModelDynamics(_single(model), dt)
    if isinstance(system, TeacherFunctional):
        system = system.module
    if isinstance(system, nn.RNNBase):
        sequence_maps.require_causal(system)
        return ModuleDynamics(system, dt)
    if callable(system) and not isinstance(system, type) and size is not None:
        return FieldDynamics(system, arguments.count("size", size))
    raise ValueError(
        f"system: a {type(system).__name__} shows no state equation: give a model of odernn, torch.nn.RNN / GRU / LSTM, or a "
        "vector field F(h) with size="
    )


def _model(system: Any) -> SequenceModel | None:
    """The model of odernn that a system is, or that a teacher wraps; None for any other system."""
    inner = system.module if isinstance(system, TeacherFunctional) else system
    return inner if isinstance(inner, SequenceModel) else None


def _single(model: SequenceModel) -> SequenceModel:
    if model.ensemble:
        raise ValueError(f"the model is an ensemble of shape {model.ensemble}: give one member at a time")
    return model


def _sized(found: Sized, input_size: int | None) -> Sized:
    """The system, whose inputs have as many channels as the user says, if he does."""
    if input_size not in (None, found.input_size):
        raise ValueError(f"input_size is {input_size}, but {found.name} takes {found.input_size}: leave it out")
    return found
