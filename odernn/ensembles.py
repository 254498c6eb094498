"""Many parameter sets of one model as one model: every weight carries a leading axis, and one solve serves all.

The equations broadcast over leading axes, so a stack of n models is the same model with `ensemble=(n, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from targets import arguments

from .models import SequenceModel


def replicate(model: SequenceModel, n: int) -> SequenceModel:
    """n copies of a model, independent from here on, as one model with ensemble (n, *model.ensemble).

    Raises:
        ValueError: no model, or n is no positive integer.

    Example:
        >>> from odernn import ContinuousRNN, replicate
        >>> replicate(ContinuousRNN(1, 4, 1, seed=0), 10).ensemble
        (10,)
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    n = arguments.count("n", n)
    return _rebuild(model, (n, *model.ensemble), lambda name, weight: weight.expand(n, *weight.shape))


def stack(models: Sequence[SequenceModel]) -> SequenceModel:
    """Models that differ only in their weights as one model with ensemble (len(models), *ensemble).

    Raises:
        ValueError: no models, or models of different kinds, sizes, dtypes or devices.

    Example:
        >>> from odernn import ContinuousRNN, stack
        >>> stack([ContinuousRNN(1, 4, 1, seed=seed) for seed in range(3)]).ensemble
        (3,)
    """
    if not isinstance(models, Sequence) or not models:
        raise ValueError(f"models is {models!r}, expected a list of at least one model; give [model, ...]")
    for model in models:
        arguments.instance("each of models", model, SequenceModel, "give models of odernn")
    first = models[0]
    kind = _kind(first) | _settings(first)
    for model in models[1:]:
        if (other := _kind(model) | _settings(model)) != kind:
            differing = sorted(key for key, value in other.items() if kind.get(key, ...) != value)
            raise ValueError(f"stacked models must be of one kind, got ones that differ in {', '.join(differing)}")
        if (model.c.dtype, model.c.device) != (first.c.dtype, first.c.device):
            raise ValueError(
                f"stacked models must share dtype and device, got {first.c.dtype} on {first.c.device} and "
                f"{model.c.dtype} on {model.c.device}: convert with model.to(...)"
            )
    states = [model.state_dict() for model in models]
    return _rebuild(first, (len(models), *first.ensemble), lambda name, _: torch.stack([state[name] for state in states]))


def member(model: SequenceModel, index: int) -> SequenceModel:
    """The model at `index` of the leading ensemble axis, as an independent model with ensemble `model.ensemble[1:]`.

    Raises:
        ValueError: a model without an ensemble axis, or an index that is no integer.
        IndexError: an index outside of it.

    Example:
        >>> from odernn import ContinuousRNN, member
        >>> member(ContinuousRNN(1, 4, 1, ensemble=(10,), seed=0), 3).ensemble
        ()
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if not model.ensemble:
        raise ValueError("the model has no ensemble axis, so it has no members: use the model itself")
    index = arguments.count("index", index, least=-arguments.MOST)
    if not -model.ensemble[0] <= index < model.ensemble[0]:
        raise IndexError(f"index must be in [{-model.ensemble[0]}, {model.ensemble[0]}), got {index}")
    return _rebuild(model, model.ensemble[1:], lambda name, weight: weight[index])


def _kind(model: SequenceModel) -> dict[str, Any]:
    """All that tells models apart but for their weights; an activation may be the user's own, which a name does not give."""
    return {**model.config(), "activation": model.activation}


def _settings(model: SequenceModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.settings}


def _rebuild(model: SequenceModel, ensemble: tuple[int, ...], weights: Callable[[str, Tensor], Tensor]) -> SequenceModel:
    """The same kind of model, and settings, with another ensemble, whose weights and buffers are `weights(name, old one)`."""
    rebuilt = model.with_ensemble(ensemble)
    state = {name: weights(name, weight.detach()) for name, weight in model.state_dict().items()}
    rebuilt.load_state_dict(state)
    for name, value in _settings(model).items():
        setattr(rebuilt, name, value)
    originals = dict(model.named_parameters())
    for name, parameter in rebuilt.named_parameters():
        parameter.requires_grad_(originals[name].requires_grad)
    return rebuilt.train(model.training)
