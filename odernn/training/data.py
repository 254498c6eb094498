"""Samples of a target: what a model is trained and judged on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from targets import arguments, grids

from ..losses import full_mask

# Part of the sequences that a split keeps for validation unless told otherwise.
VALIDATION_FRACTION = 0.2


@dataclass(frozen=True)
class Samples:
    """Sequences with their times and targets, as `Data` holds them; indexing takes some of the sequences."""

    t: Tensor
    x: Tensor
    y: Tensor
    mask: Tensor | None = None

    def __getitem__(self, index: Tensor | slice) -> Samples:
        t = self.t if self.t.ndim == 1 else self.t[index]
        return Samples(t, self.x[index], self.y[index], None if self.mask is None else self.mask[index])


@dataclass(frozen=True, repr=False)
class Data:
    """Inputs x (batch, time, input) and targets y (batch, time, output) at times t, for training and validation.

    A target is missing where y is NaN or its mask False: its value has no effect, and y holds NaN there.

        Data(t, x, y, x_validation, y_validation)
        Data.split(t, x, y, validation_fraction=0.2)    # a part of the sequences validates

    Args:
        t: (time,), or (batch, time) where every sequence has times of its own.
        x, x_validation: (batch, time, input).
        y, y_validation: (batch, time, output); NaN for a missing target.
        mask, mask_validation: bool, (batch, time) or (batch, time, output), False where a target is missing; None for none.
        t_validation: the times of validation; None for t, which must be (time,) then.

    Attributes:
        mask, mask_validation: (batch, time, output), with the NaN of y; None where every target is there.

    Raises:
        ValueError: not two times or more, no sequences, a sequence without any target, or tensors that differ in shape, precision
            or device or are not finite.

    Example:
        >>> import torch
        >>> from odernn import Data
        >>> t, x = torch.linspace(0, 1, 11), torch.randn(20, 11, 1)
        >>> y = x.cumsum(1)
        >>> y[0, 5:] = torch.nan  # not measured
        >>> data = Data.split(t, x, y)
        >>> data.x.shape, data.x_validation.shape
        (torch.Size([16, 11, 1]), torch.Size([4, 11, 1]))
    """

    t: Tensor
    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    mask: Tensor | None = None
    mask_validation: Tensor | None = None
    t_validation: Tensor | None = None

    def __post_init__(self) -> None:
        if self.t_validation is None and isinstance(self.t, Tensor) and self.t.ndim == 2:
            raise ValueError(
                f"t has shape {tuple(self.t.shape)}, times of every training sequence: give t_validation (batch, time), too"
            )
        for end in ("", "_validation"):
            x, y = getattr(self, f"x{end}"), getattr(self, f"y{end}")
            t = self.t if self.t_validation is None or not end else self.t_validation
            grids.times(t, "t" if t is self.t else f"t{end}", least=2, per_sequence=True)
            for name, tensor, like in ((f"x{end}", x, self.x), (f"y{end}", y, self.y)):
                arguments.floating_tensor(name, tensor, shape="(batch, time, channel)", finite=name[0] == "x")
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
            if x.shape[:2] != y.shape[:2] or x.shape[1] != t.shape[-1] or t.shape[:-1] not in ((), x.shape[:1]):
                raise ValueError(
                    f"x, y and t disagree: x{end} is {tuple(x.shape)}, y{end} {tuple(y.shape)}, t has {_times_of(t)}; "
                    "expected (batch, time, channel) with the same batch and time; match them"
                )
            self._set_mask(end, y)

    def _set_mask(self, end: str, y: Tensor) -> None:
        """One form for missing targets: NaN in y, and a mask of its shape; none where every target is there."""
        mask = getattr(self, f"mask{end}")
        there = ~y.isnan() if mask is None else full_mask(mask, y.shape, f"mask{end}").to(y.device) & ~y.isnan()
        infinite = y.isinf() & there
        if infinite.any():
            raise ValueError(
                f"y{end} holds infinite values ({int(infinite.sum())} of {y.numel()}): give NaN for a missing target"
            )
        empty = ~there.flatten(1).any(1)
        if empty.any():
            raise ValueError(
                f"all targets y{end} of sequence {int(empty.nonzero()[0])} are missing ({int(empty.sum())} such of "
                f"{len(empty)}): leave such sequences out"
            )
        complete = bool(there.all())
        object.__setattr__(self, f"mask{end}", None if complete else there)
        if not complete:
            object.__setattr__(self, f"y{end}", torch.where(there, y, torch.nan))

    @classmethod
    def split(
        cls,
        t: Tensor | NDArray[Any],
        x: Tensor | NDArray[Any],
        y: Tensor | NDArray[Any],
        *,
        validation_fraction: float = VALIDATION_FRACTION,
        seed: int = 0,
        mask: Tensor | NDArray[Any] | None = None,
    ) -> Data:
        """Sequences of which a random part validates.

        A single sequence is split in time: its first part trains, and its last part validates, from the state that the first part
        leads to; both are targets of the same x.

        Args:
            t: (time,) or (batch, time).
            x, y, mask: as in `Data`; arrays and lists, too, which become tensors in float64.
            validation_fraction: part of the sequences (of a single one, of its targets), > 0 and < 1, rounded to at least one
                and not all of them.
            seed: of the draw.

        Raises:
            ValueError: as `Data`, or a fraction that is none.

        Example:
            data = Data.split(t, x, y, validation_fraction=0.1)
        """
        fraction = arguments.number("validation_fraction", validation_fraction, above=0, below=1)
        t, x, y = (arguments.real_tensor(name, given, finite=False) for name, given in (("t", t), ("x", x), ("y", y)))
        mask = mask if mask is None else torch.as_tensor(mask)
        whole = cls(t, x, y, x, y, mask, mask, t)
        count = len(whole.x)
        if count == 1:
            return whole._split_in_time(fraction)
        held = min(max(round(fraction * count), 1), count - 1)
        order = torch.randperm(count, generator=arguments.generator(seed)).to(whole.x.device)
        return whole.chosen(order[held:].sort().values, order[:held].sort().values)

    def chosen(self, training: Tensor, validation: Tensor) -> Data:
        """Some of the training sequences, and others for validation, by their indices."""
        one, other = self.training[training], self.training[validation]
        same = self.t.ndim == 1
        return Data(one.t, one.x, one.y, other.x, other.y, one.mask, other.mask, None if same else other.t)

    def _split_in_time(self, fraction: float) -> Data:
        there = torch.ones_like(self.y, dtype=torch.bool) if self.mask is None else self.mask
        observed = there[0].any(-1).nonzero().flatten()
        if len(observed) < 2:
            raise ValueError("y has one target in all, and nothing is left for validation: give more, or y_validation")
        held = min(max(round(fraction * len(observed)), 1), len(observed) - 1)
        late = torch.arange(len(there[0]), device=there.device) >= observed[-held]
        late = late[:, None].expand_as(there[0])
        return replace(self, mask=there & ~late, mask_validation=there & late, t_validation=None if self.t.ndim == 1 else self.t)

    @property
    def input_size(self) -> int:
        return self.x.shape[-1]

    @property
    def output_size(self) -> int:
        return self.y.shape[-1]

    @property
    def training(self) -> Samples:
        return Samples(self.t, self.x, self.y, self.mask)

    @property
    def validation(self) -> Samples:
        t = self.t if self.t_validation is None else self.t_validation
        return Samples(t, self.x_validation, self.y_validation, self.mask_validation)

    def __repr__(self) -> str:
        missing = [0.0 if mask is None else 1 - float(mask.double().mean()) for mask in (self.mask, self.mask_validation)]
        gaps = f", {missing[0]:.0%} and {missing[1]:.0%} of the targets missing" if any(missing) else ""
        own = ", times of each sequence" if self.t.ndim == 2 else ""
        return (
            f"Data({len(self.x)} sequences to train and {len(self.x_validation)} to validate, {self.x.shape[1]} times, "
            f"{self.input_size} channels to {self.output_size}{own}{gaps}, {self.x.dtype} on {self.x.device})"
        )

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> Data:
        """The data on another device and in another precision. (Times keep theirs, which their differences need.)"""

        def moved(name: str, tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, dtype if name[0] in "xy" else None)

        return Data(**{name: moved(name, getattr(self, name)) for name in self.__dataclass_fields__})  # type: ignore[arg-type]


def _times_of(t: Tensor) -> str:
    return f"{t.numel()} times" if t.ndim == 1 else f"shape {tuple(t.shape)}"
