"""Modules with embeddings, heads, or steps of their own as maps of sequences, (batch, time, input) to (batch, time, output)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from targets import arguments


class Adapted(nn.Module):
    """A module and what stands before and behind it as one map from x (batch, time, input) to y (batch, time, output).

        readout(pick(module(encode(x))))

    torch.nn.RNNCell, LSTMCell and GRUCell, and modules called as they are, module(x_k, state) -> state, are stepped through time
    (`step=True`), from the state None, and y is the first tensor of the state.

    Args:
        module: what is in the middle.
        encode: from x to what the module takes; None for x itself. Of a torch.nn.Embedding x are weights of its rows,
            (batch, time, num_embeddings), one-hot for a token.
        readout: from the module's output (batch, time, channel) to y; None for that output.
        output: where the output stands in what the module returns: a key of a dict, an attribute ('last_hidden_state'), or an
            index; None for the first tensor there is.
        input_size: channels of x; None where the module tells.
        batch_first: whether the module takes (batch, time, channel); False for (time, batch, channel). None for what the
            module's own `batch_first` says, and True without one.
        step: whether the module maps one sample and a state; None for whether it is a cell of torch.nn.

    Raises:
        ValueError: an input size that cannot be told, or what is not callable.

    Example:
        >>> import torch
        >>> from analysis import Adapted, memory_function
        >>> net = Adapted(torch.nn.LSTM(8, 32), encode=torch.nn.Linear(2, 8), readout=torch.nn.Linear(32, 1), input_size=2)
        >>> memory_function(net, torch.arange(10.0), ascent_steps=0).values.shape
        torch.Size([10])
    """

    def __init__(
        self,
        module: Callable[..., Any],
        *,
        encode: Callable[[Tensor], Any] | None = None,
        readout: Callable[[Tensor], Tensor] | None = None,
        output: str | int | None = None,
        input_size: int | None = None,
        batch_first: bool | None = None,
        step: bool | None = None,
    ) -> None:
        super().__init__()
        for name, part in (("module", module), ("encode", encode), ("readout", readout)):
            if part is not None and (not callable(part) or inspect.isclass(part)):
                raise ValueError(f"{name} is {arguments.kind_of(part)}, expected a torch.nn.Module or a function: give one")
        if isinstance(encode, nn.Embedding):
            encode = _Mixture(encode)
        self.module, self.encode, self.readout, self.output = module, encode, readout, output
        self.step = isinstance(module, nn.RNNCellBase) if step is None else step
        self.batch_first = getattr(module, "batch_first", True) if batch_first is None else batch_first
        if input_size is None:
            first = module if encode is None else encode
            sizes = (getattr(first, name, None) for name in ("input_size", "in_features"))
            input_size = next((size for size in sizes if isinstance(size, int)), None)
            if not isinstance(input_size, int):
                kind = getattr(first, "__name__", type(first).__name__)
                raise ValueError(f"input_size cannot be told from {kind}: give input_size=, the channels of x")
        self.input_size = arguments.count("input_size", input_size)

    def forward(self, x: Tensor) -> Tensor:
        z = x if self.encode is None else self.encode(x)
        if self.step:
            y = self._stepped(z)
        elif self.batch_first:
            y = self._picked(self.module(z))
        else:
            y = self._picked(self.module(z.transpose(0, 1))).transpose(0, 1)
        return y if self.readout is None else self.readout(y)

    def _stepped(self, z: Tensor) -> Tensor:
        state, states = None, []
        for z_k in z.unbind(1):
            state = self.module(z_k, state)
            states.append(self._picked(state))
        return torch.stack(states, 1)

    def _picked(self, found: Any) -> Tensor:
        if self.output is not None:
            name = self.output
            try:
                found = found[name] if isinstance(name, int) or isinstance(found, Mapping) else getattr(found, name)
            except (AttributeError, IndexError, KeyError, TypeError):
                raise ValueError(f"the module returned {_told(found)}, which has no {name!r}: give another output") from None
        first = first_tensor(found)
        if first is None:
            raise ValueError(f"the module returned {_told(found)}, and no tensor in it: give output=, where it stands")
        return first


class _Mixture(nn.Module):
    """Rows of an embedding by their weights."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding, self.input_size = embedding, embedding.num_embeddings

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.embedding.weight


def first_tensor(found: Any) -> Tensor | None:
    """The tensor itself, or the first in a tuple, list, dict or output object; None where there is none."""
    if isinstance(found, Tensor):
        return found
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, tuple | list):
        return next((one for part in found if (one := first_tensor(part)) is not None), None)
    return None


def _told(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a {type(found).__name__} of {', '.join(map(str, found))}"
    return f"a {type(found).__name__}" + (f" of {len(found)}" if isinstance(found, tuple | list) else "")
