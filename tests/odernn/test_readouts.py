from __future__ import annotations

import pytest
import torch
from problems import F64

from odernn import StateSpaceModel, readouts
from odernn.activations import ACTIVATIONS
from odernn.readouts import readout_along


@pytest.mark.parametrize("ensemble", [(), (3,)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_segmented_readout_is_the_plain_one(activation, ensemble, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    field = StateSpaceModel(1, 4, 2, activation, "diagonal", ensemble=ensemble, dtype=F64).field()
    h = 2 * torch.randn(*ensemble, 5, 11, 4, dtype=F64, generator=generator)
    h.requires_grad_()
    g = torch.randn(*ensemble, 5, 11, 2, dtype=F64, generator=generator)

    def found():
        y = readout_along(field, h)
        return y, *torch.autograd.grad(y, (h, field.c), g)

    plain = found()
    monkeypatch.setattr(readouts, "_LARGE", 0)
    monkeypatch.setattr(readouts, "_SEGMENT_BYTES", 3 * h.numel() * 8 // 11)  # 3 of the 11 times
    segmented = found()
    assert segmented[0].grad_fn.name() == "_SegmentedReadoutBackward"
    for one, other in zip(segmented, plain):
        assert torch.allclose(one, other, rtol=1e-13, atol=1e-13)
