"""Starting a wide model from a narrow one that is already trained."""

from __future__ import annotations

from targets import arguments

from .models import SequenceModel


def widen(narrow: SequenceModel, wide: SequenceModel) -> None:
    """Gives `wide` the function of `narrow`: its first units are those of `narrow`, the readout of the rest is 0.

    The new units keep their own initial rates and a small part of their inputs, so that training can take them up: a drive that
    nothing reads is a burden once a perturbation of W mixes the units. The error of the wider model starts where the narrower
    one's ended and E_m(0) does not rise with m. How a weight widens stands with it (`SequenceModel.raw_weights`).

    Raises:
        ValueError: models of another kind, recurrence, parameterisation or depth, or a `wide` that is not wider.

    Source: net2net, Chen, Goodfellow and Shlens (2016), with new units in place of copies.
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
    state, weights = wide.state_dict(), wide.raw_weights()
    for name, value in narrow.state_dict().items():
        state[name] = weights[name].widen(value.to(state[name]), state[name].clone())
    wide.load_state_dict(state)
