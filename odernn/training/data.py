"""Samples of a target: what a model is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from targets import arguments, grids

from ..short_repr import short_repr


@dataclass(frozen=True)
class Data:
    """Inputs x (batch, time, input) and targets y (batch, time, output) at times t (time,), for training and validation.

    Raises:
        ValueError: not two times or more, no sequences, or tensors that differ in shape, precision or device or are not finite.
    """

    t: Tensor
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor

    __repr__ = short_repr

    def __post_init__(self) -> None:
        grids.times(self.t, least=2)
        for end in ("", "_validation"):
            x, y = getattr(self, f"x{end}"), getattr(self, f"y{end}")
            for name, tensor, like in ((f"x{end}", x, self.x), (f"y{end}", y, self.y)):
                arguments.floating_tensor(name, tensor, shape="(batch, time, channel)")
                if tensor.ndim != 3 or not tensor.numel() or tensor.shape[-1] != like.shape[-1]:
                    raise ValueError(
                        f"{name} has shape {tuple(tensor.shape)}, expected (batch, time, channel), none 0, and for "
                        "validation the channels of training; give as many"
                    )
                if (tensor.dtype, tensor.device) != (self.x.dtype, self.x.device):
                    raise ValueError(
                        f"{name} is {tensor.dtype} on {tensor.device}, x {self.x.dtype} on {self.x.device}, expected the same; "
                        "convert one with .to(...)"
                    )
            if x.shape[:2] != y.shape[:2] or x.shape[1] != self.t.numel():
                raise ValueError(
                    f"x, y and t disagree: x{end} is {tuple(x.shape)}, y{end} {tuple(y.shape)}, t has {self.t.numel()} times; "
                    "expected (batch, time, channel) with the same batch and time; match them"
                )
