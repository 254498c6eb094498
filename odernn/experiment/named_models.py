"""Models and activations that a config names as code of the user's."""

from __future__ import annotations

import copy
from dataclasses import fields
from inspect import signature
from typing import Any

import torch

from targets.named_objects import is_code, named_object

from ..activations import Activation
from ..models import SequenceModel
from .config import ExperimentConfig

# What a model that is code brings itself.
_BROUGHT = ("activation", "recurrence", "parameterization", "hidden_size", "num_layers", "tau", "initialization", "warm_start")


def own_model(config: ExperimentConfig, input_size: int, output_size: int) -> SequenceModel | type[SequenceModel]:
    """The model that the config's code makes, with random weights that follow the config's seed, or a class of models.

    Raises:
        ValueError: it makes something else, or a model of other sizes, or one that the config has settings for.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        found = named_object(config.model, constructs=lambda made: not _takes_sizes(made))
    if _takes_sizes(found):
        return found
    if not isinstance(found, SequenceModel):
        raise ValueError(
            f"model {config.model} is a {type(found).__name__}, expected a model of odernn, a class of them, or a function "
            "without arguments that makes one: return NeuralODE(...), say"
        )
    defaults = {item.name: item.default for item in fields(config)}
    given = [name for name in _BROUGHT if getattr(config, name) != defaults[name]]
    if given:
        raise ValueError(f"model {config.model} brings its own {', '.join(given)}, which came as well: leave that out")
    if (found.input_size, found.output_size) != (input_size, output_size) or found.ensemble:
        raise ValueError(
            f"model {config.model} has {found.input_size} input(s), {found.output_size} output(s) and ensemble {found.ensemble}, "
            f"expected {input_size} and {output_size}, those of the target, and none: make it so"
        )
    # A module keeps the object for whoever asks again.
    return copy.deepcopy(found)


def activation_of(config: ExperimentConfig) -> str | Activation:
    """The name of the activation, or the activation that its code is.

    Raises:
        ValueError: code that is no function of tensors.
    """
    if not is_code(config.activation):
        return config.activation
    found = named_object(config.activation)
    if isinstance(found, Activation):
        return found
    if not callable(found):
        raise ValueError(f"activation {config.activation} is a {type(found).__name__}, expected an Activation or a function")
    return Activation(config.activation.rpartition(":")[2], found)


def _takes_sizes(found: Any) -> bool:
    """Whether this is a class of models that the config's sizes and settings make; others are made as they are."""
    return isinstance(found, type) and issubclass(found, SequenceModel) and "hidden_size" in signature(found).parameters
