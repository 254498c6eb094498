"""Starting a wide model from a narrow one that is already trained."""

from __future__ import annotations

import torch
from torch import Tensor

from targets import arguments

from .models import SequenceModel

# What the new units keep of their initial U.
_NEW_INPUTS = 0.1


def embed(narrow: SequenceModel, wide: SequenceModel) -> None:
    """Gives `wide` the function of `narrow`: its first units are those of `narrow`, the readout of the rest is 0.

    The new units keep their own initial rates and a small part of their inputs, so that training can take them up: a drive that
    nothing reads is a burden once a perturbation of W mixes the units. The error of the wider model starts where the narrower
    one's ended and E_m(0) does not rise with m.

    Raises:
        ValueError: models of another kind, recurrence, parameterisation or depth, or a `wide` that is not wider.
    """
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
    state = wide.state_dict()
    for name, value in narrow.state_dict().items():
        state[name] = _extended(name.rpartition(".")[2], value.to(state[name]), state[name].clone())
    wide.load_state_dict(state)


def _extended(kind: str, narrow: Tensor, wide: Tensor) -> Tensor:
    """One raw weight of the wide model: that of the narrow one, and for the new units what they had, uncoupled from the old."""
    m = narrow.shape[-1]
    if kind == "c":
        wide.zero_()
        wide[..., :m] = narrow
    elif kind == "U":
        wide *= _NEW_INPUTS
        wide[..., : narrow.shape[-2], :] = 0
        wide[..., : narrow.shape[-2], :m] = narrow
    elif kind in ("W", "A", "P", "P0"):
        if kind in ("P", "P0") and wide.shape[-1] > m:
            # A block of an orthogonal matrix is not orthogonal itself.
            wide[..., m:, m:] = torch.linalg.qr(wide[..., m:, m:]).Q
        wide[..., :m, m:] = 0
        wide[..., m:, :m] = 0
        wide[..., :m, :m] = narrow
    else:  # vectors: w, omega, b
        wide[..., :m] = narrow
    return wide
