from __future__ import annotations

import pytest
import torch
from problems import F64

from odernn import Adaptive, ContinuousRNN, DivergedSolve, Fused, StateSpaceModel, readouts
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


@pytest.mark.parametrize("solver", [None, Fused(substeps=4), Adaptive("bosh3")], ids=str)
@pytest.mark.parametrize("ensemble", [(5,), (2, 3), (1, 7)])
@pytest.mark.parametrize("layers", [1, 2])
def test_members_solved_some_after_the_others_are_those_of_one_solve(solver, ensemble, layers, monkeypatch):
    model = ContinuousRNN(2, 3, 1, "tanh", num_layers=layers, ensemble=ensemble, seed=0, dtype=F64)
    t = torch.tensor([0.0, 0.5, 0.7, 1.5], dtype=F64)
    generator = torch.Generator().manual_seed(1)
    own, common = (torch.randn(*axes, 4, 4, 2, dtype=F64, generator=generator) for axes in (ensemble, ()))
    h0 = torch.randn(*ensemble, 4, 3 * layers, dtype=F64, generator=generator)
    seen = []
    solve = ContinuousRNN._states

    def states(self, field, path, times, start, solver):
        seen.append(start.shape[:-2].numel())
        return solve(self, field, path, times, start, solver)

    monkeypatch.setattr(ContinuousRNN, "_states", states)
    for x, start in ((own, None), (common, "zero"), (own, h0), (common, h0)):
        with torch.no_grad():
            whole = readout_along(model.field(), model.respond(x, t, start, solver=solver).solution.h)
            monkeypatch.setattr(readouts, "_MEMBERS_BYTES", 1)
            seen.clear()
            assert torch.equal(model(x, t, start, solver=solver), whole)
            assert max(seen) <= 3
            assert sum(seen) == whole.shape[:-3].numel()
        seen.clear()
        model(x, t, start, solver=solver).sum().backward()
        assert seen == [whole.shape[:-3].numel()]  # a gradient needs all states
        monkeypatch.undo()
        monkeypatch.setattr(ContinuousRNN, "_states", states)


def test_a_member_that_diverges_is_named_among_others(monkeypatch):
    monkeypatch.setattr(readouts, "_MEMBERS_BYTES", 1)
    model = ContinuousRNN(1, 2, 1, "relu", ensemble=(6,), seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight[4] = 50.0
    t = torch.linspace(0, 50, 51)
    with pytest.raises(DivergedSolve), torch.no_grad():
        model(torch.ones(2, 51, 1), t, solver=Fused(check=False))
