"""Starting a wide model from a narrow one that is already trained."""

from __future__ import annotations

import torch

from .models import SequenceModel


def embed(narrow: SequenceModel, wide: SequenceModel) -> None:
    """Gives `wide` the function of `narrow`: its first units are those of `narrow`, the readout of the rest is 0.

    The new units keep their own initial rates and inputs, so that training can take them up; the error of the wider model starts
    where the narrower one's ended and E_m(0) does not rise with m.

    Raises:
        ValueError: models of another kind or depth, or a `wide` that is not wider.
    """
    kind = {"model", "input_size", "output_size", "activation", "num_layers", "bias", "ensemble"}
    for key in sorted(kind):
        ours, theirs = wide.config()[key], narrow.config()[key]
        if ours != theirs:
            raise ValueError(f"a warm start needs models of one kind, got {key} {theirs!r} (narrow) and {ours!r} (wide)")
    m, M = narrow.hidden_size, wide.hidden_size
    if m > M:
        raise ValueError(f"a warm start needs a narrower model, got hidden size {m} for one of hidden size {M}")
    with torch.no_grad():
        for index, (source, target) in enumerate(zip(narrow.layer_weights, wide.layer_weights)):
            W = target.recurrence.state_matrix().to_dense().clone()
            # The new units start coupled among themselves only.
            W[..., :m, :] = 0
            W[..., :, :m] = 0
            W[..., :m, :m] = source.recurrence.state_matrix().to_dense()
            wide.set_matrix(W, layer=index)
            target.U[..., :m, :] = 0
            target.U[..., :m, : source.U.shape[-1]] = source.U
            if target.b is not None and source.b is not None:
                target.b[..., :m] = source.b
        wide.c.zero_()
        wide.c[..., :m] = narrow.c
