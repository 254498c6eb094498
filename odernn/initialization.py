"""Initial spectra given to models: the W of every layer, and its U where the spectrum has an input of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from targets import arguments

from . import spectra
from .layer_weights import LayerWeights
from .linear_recurrent_unit import LinearRecurrentUnit
from .models import SequenceModel
from .recurrences import Pairs
from .spectra import SPECTRA, Spectrum
from .warm_start import fastest_rate, spread_rates

# Which recurrences hold a spectrum, for messages.
_OF_PAIRS = "holds conjugate pairs, as recurrences 'complex', 'lru' and 'dense' do"
_REAL = "holds real modes, as all recurrences but 'lru' do"
_FULL = "has a full matrix, which recurrence 'dense' alone takes"


def initialize(
    model: SequenceModel,
    spectrum: str | Spectrum | Any,
    horizon: float | None = None,
    *,
    step: float = 1.0,
    seed: int = 0,
) -> None:
    """Gives every layer of a model an initial spectrum:

        dh/dt = A h + B x in continuous time,    h_{k+1} = e^{A Dt} h_k + (int_0^Dt e^{As} ds) B x_k in discrete time.

    W becomes A. U becomes B where the spectrum has one and the layer one input; otherwise U stays random, as c and b do. Real
    modes in recurrences of pairs stand twice each, m/2 of them. Where the parameterisation does not reach the fastest rate 1 of
    'geometric', 'linear' and 'log_uniform' they end just before its end; 'geometric' is `odernn.warm_start.spread_rates`.
    'log_uniform' and 'lru' are drawn anew for each layer and member of an ensemble. In recurrence 'lru' the normalisation of the
    input becomes that of the new modes.

    Args:
        spectrum: a name of `odernn.spectra.SPECTRA`, a `Spectrum`, or eigenvalues (m,) as `spectra.of_eigenvalues` takes them.
        horizon: T, in units of time: the slowest mode of a named spectrum decays at the rate 1/T (but of 'lru', which needs
            none). Left out for what is no name: `Spectrum.scaled` changes its unit of time.
        step: time between samples, of models in discrete time and of 'lru'.
        seed: of what is drawn.

    Raises:
        ValueError: an unknown name, a spectrum of another size, or one that recurrence or parameterisation cannot hold, or that a
            map which takes Euler steps would not be stable with; the model is then as it was.

    Example:
        model = StateSpaceModel(1, 64, 1, "linear", "complex", "exp")
        initialize(model, "s4d_inv", horizon=1000.0)
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    step = arguments.number("step", step, above=0)
    generator = np.random.default_rng(arguments.count("seed", seed, least=0, most=spectra.LARGEST_SEED))
    if isinstance(spectrum, str):
        arguments.choice("spectrum", spectrum, SPECTRA)
        if horizon is None and spectrum != "lru":
            raise ValueError(f"spectrum {spectrum!r} is scaled to a horizon: give horizon=T")
    elif horizon is not None:
        raise ValueError("horizon scales a named spectrum, got one of your own: leave it out, or give Spectrum.scaled(...)")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        if isinstance(spectrum, str) and spectrum == "geometric":
            assert horizon is not None
            spread_rates(model, horizon, step)
            return
        if not model.layer_weights:
            model.set_matrix(torch.zeros(()))  # says why there is none
        for index, layer in enumerate(model.layer_weights):
            found = _members(model, layer, spectrum, horizon, step, generator)
            _require_stable(model, found[0].name, np.concatenate([one.eigenvalues for one in found]), step)
            _set(model, index, found, step)
    except ValueError:
        model.load_state_dict(before)
        raise


def _members(
    model: SequenceModel, layer: LayerWeights, spectrum: Any, horizon: float | None, step: float, generator: np.random.Generator
) -> list[Spectrum]:
    """One spectrum for all members of the ensemble, or one for each where it is drawn."""
    m = model.hidden_size
    if not isinstance(spectrum, str):
        own = spectrum if isinstance(spectrum, Spectrum) else spectra.of_eigenvalues(spectrum)
        if own.eigenvalues.size != m:
            raise ValueError(f"the spectrum has {own.eigenvalues.size} modes, the model {m} states a layer: give one for each")
        return [own]
    count = math.prod(model.ensemble) if SPECTRA[spectrum].drawn else 1
    options: dict[str, Any] = {"step": step, "fastest": fastest_rate(model, step), "pairs": isinstance(layer.recurrence, Pairs)}
    return [spectra.spectrum(spectrum, m, horizon, **options, seed=generator) for _ in range(count)]


def _require_stable(model: SequenceModel, name: str, eigenvalues: np.ndarray, step: float) -> None:
    """Euler steps turn a fast oscillation that decays into one that grows."""
    if model.is_map and model.time == "continuous":
        growth = np.abs(1 + step * eigenvalues).max()
        if growth > 1 and eigenvalues.real.max() < 0:
            raise ValueError(
                f"spectrum {name!r} has modes that grow by {growth:.3g} in each Euler step of {step:g} of model {model.name!r}: "
                "give more samples, another spectrum, or a model in continuous time"
            )


def _set(model: SequenceModel, index: int, found: list[Spectrum], step: float) -> None:
    """W, and U where the spectrum has an input."""
    layer, name, m = model.layer_weights[index], found[0].name, model.hidden_size
    systems = torch.zeros(len(found), m + 1, m + 1, dtype=torch.float64)
    for one, system in zip(found, systems):
        system[:m, :m] = torch.from_numpy(one.matrix)
        if one.input is not None:
            system[:m, m] = torch.from_numpy(one.input)
    if model.time == "discrete":
        systems = torch.linalg.matrix_exp(step * systems)
    A, B = systems[:, :m, :m], systems[:, :m, m:]
    if len(found) > 1:
        A = A.unflatten(0, model.ensemble)
    else:
        A, B = A[0], B[0]
    try:
        model.set_matrix(A, index)
    except ValueError as error:
        raise ValueError(f"spectrum {name!r} {_kind(found[0])}: {error}") from None
    if isinstance(layer.recurrence, LinearRecurrentUnit):
        layer.recurrence.normalize()
    if found[0].input is not None and layer.U.shape[-1] == 1:
        with torch.no_grad():
            # What the state sees of U is U times the input scale of the parameterisation, and in leaky models over tau.
            seen = layer.scale_input(torch.eye(m).to(layer.U).expand(*model.ensemble, m, m))
            layer.U.copy_(torch.linalg.solve(seen.double(), B.to(seen.device).expand(*model.ensemble, m, 1)))


def _kind(found: Spectrum) -> str:
    if found.is_full:
        return _FULL
    return _OF_PAIRS if found.eigenvalues.imag.any() else _REAL
