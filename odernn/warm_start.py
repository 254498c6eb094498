"""Starts of a training that are better than random: a narrower model, a linear one, rates that cover a horizon."""

from __future__ import annotations

import math

import torch

from targets import arguments

from .activations import Activation
from .citations import record
from .models import SequenceModel
from .recurrences import RANGE_MARGIN

# |z| at which sigma must look linear, and how closely, to be so near 0.
_NEAR, _LINEAR = 1e-6, 1e-3


def widen(narrow: SequenceModel, wide: SequenceModel) -> None:
    """Gives `wide` the function of `narrow`: its first units are those of `narrow`, the readout of the rest is 0.

    The new units keep their own initial rates and a small part of their inputs, so that training can take them up: a drive that
    nothing reads is a burden once a perturbation of W mixes the units. The error of the wider model starts where the narrower
    one's ended and E_m(0) does not rise with m. How a weight widens stands with it (`SequenceModel.raw_weights`).

    Raises:
        ValueError: models of another kind, recurrence, parameterisation or depth, or a `wide` that is not wider.

    Example:
        >>> from odernn import ContinuousRNN, widen
        >>> narrow, wide = (ContinuousRNN(1, m, 1, "tanh", "diagonal", "softplus", seed=0) for m in (4, 8))
        >>> widen(narrow, wide)  # wide now computes what narrow does

    Source: net2net, Chen, Goodfellow and Shlens (2016) [Chen2016], with new units in place of copies.
    """
    record(widen)
    for name, model in (("narrow", narrow), ("wide", wide)):
        arguments.instance(name, model, SequenceModel, "give a model of odernn")
    ours, theirs = wide.config(), narrow.config()
    for key in ours.keys() - {"hidden_size"}:
        if ours[key] != theirs[key]:
            pair = f"{theirs[key]!r} (narrow) and {ours[key]!r} (wide)"
            raise ValueError(f"a warm start needs models of one kind, got {key} {pair}")
    m, M = narrow.hidden_size, wide.hidden_size
    if m > M:
        raise ValueError(f"a warm start needs a narrower model, got hidden size {m} for one of hidden size {M}")
    state, weights = wide.state_dict(), wide.raw_weights()
    for name, value in narrow.state_dict().items():
        state[name] = weights[name].widen(value.to(state[name]), state[name].clone())
    wide.load_state_dict(state)


def spread_rates(model: SequenceModel, horizon: float, step: float = 1.0) -> None:
    """Gives every layer rates -Re l that are geometric on [1/T, 1], so that all time scales up to the horizon are there.

    Where the parameterisation does not reach 1 they end just before its end. U, c and b stay.

    Args:
        horizon: T.
        step: time between samples, of a model in discrete time (l = e^{-r step}).

    Raises:
        ValueError: a horizon of less than 1, or a recurrence that cannot take these rates.
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    horizon, step = arguments.number("horizon", horizon, least=1), arguments.number("step", step, above=0)
    fastest, discrete = fastest_rate(model, step), model.time == "discrete"
    rates = torch.logspace(math.log10(fastest / horizon), math.log10(fastest), model.hidden_size, dtype=torch.float64)
    # Conjugate pairs share their rates; those that must turn do so as slowly as they decay.
    of_pairs = torch.diag(rates[::2])
    still, turning = (torch.tensor([[-1.0, -turn], [turn, -1.0]], dtype=torch.float64) for turn in (0.0, 1.0))
    generators = (torch.diag(-rates), torch.kron(of_pairs, still), torch.kron(of_pairs, turning))
    for layer in range(model.num_layers):
        for attempt, generator in enumerate(generators, 1):
            try:
                model.set_matrix(torch.linalg.matrix_exp(generator * step) if discrete else generator, layer)
                break
            except ValueError:
                if attempt == len(generators):
                    raise


def fastest_rate(model: SequenceModel, step: float = 1.0) -> float:
    """1, or just before the fastest rate that the parameterisation reaches; step as in `spread_rates`."""
    low, _ = model.parameterization.range
    limit = -low if model.time == "continuous" else -math.log(low) / step if low > 0 else math.inf
    return min(1.0, RANGE_MARGIN * limit)


def place(linear: SequenceModel, model: SequenceModel, scale: float = 1.0) -> None:
    """Gives `model` the function of a linear one, for inputs so small that its activation is linear:

        W, U s, c / s    with W / a, U s / a (rnn) or c / (a s) (ssm) where sigma'(0) = a,    b = 0,

    and with (W + (1 - a) / tau I) / a and tau U in leaky models.

    A smaller scale s makes larger inputs small enough, at the price of a larger readout.

    Args:
        linear: one layer with activation 'linear', without b and ensemble, in continuous time.
        scale: s > 0.

    Raises:
        ValueError: another kind or size of model, an activation without a linear range around 0 (relu, sigmoid), or a W that the
            recurrence and parameterisation cannot take.
    """
    for name, one in (("linear", linear), ("model", model)):
        arguments.instance(name, one, SequenceModel, "give a model of odernn")
    scale = arguments.number("scale", scale, above=0)
    if not linear.activation.linear or linear.layer_weights[0].b is not None or linear.is_map or model.is_map:
        raise ValueError(
            "place takes a linear model without b for one in continuous time, got other kinds: fit one by fit_kernel"
        )
    sizes = [(one.input_size, one.hidden_size, one.output_size, one.num_layers, one.ensemble) for one in (linear, model)]
    if sizes[0] != sizes[1] or sizes[0][3:] != (1, ()):
        raise ValueError(
            "place takes one layer and no ensemble, and models of one size, got (input, hidden, output, layers, ensemble) = "
            f"{sizes[0]} and {sizes[1]}"
        )
    slope = slope_at_zero(model.activation)
    if slope is None:
        raise ValueError(
            f"activation {model.activation.name!r} is not linear around 0, so that no linear model can be placed there: start "
            "from random weights"
        )
    field, target, (layer,) = linear.field(), model.field(), model.layer_weights
    inner, outer = (1.0, slope) if target.emits_activation else (slope, 1.0)
    with torch.no_grad():
        W = field.layers[0].W.to_dense()
        eye = torch.eye(model.hidden_size).to(W)
        model.set_matrix((W + (1 - slope) / target.tau * eye) / slope if target.leaky else W / inner)
        # What the state sees of U is U times the parameterisation's input scale.
        seen = layer.scale_input(eye.to(layer.U))
        layer.U.copy_(torch.linalg.solve(seen, field.layers[0].U.to(layer.U)) * (scale / inner))
        model.c.copy_(field.c / (scale * outer))
        if layer.b is not None:
            layer.b.zero_()


def slope_at_zero(activation: Activation) -> float | None:
    """sigma'(0) of an activation that is linear around 0 with sigma(0) = 0; None for another (relu, sigmoid)."""
    ends = torch.tensor([-_NEAR, 0.0, _NEAR], dtype=torch.float64)
    below, zero, above = (activation(ends) / _NEAR).tolist()
    alike = abs(above + below) <= _LINEAR * abs(above) and zero == 0
    return above if alike and above > 0 else None
