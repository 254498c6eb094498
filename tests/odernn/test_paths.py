from __future__ import annotations

import pytest
import torch
from problems import F64, central_difference
from torch import Tensor

from odernn import paths

T = torch.tensor([0.0, 0.5, 1.5, 2.0], dtype=F64)
X = torch.tensor([[[1.0], [3.0], [-1.0], [0.0]]], dtype=F64)  # (batch, time, channel)


def value(path, s):
    return path(torch.tensor(s, dtype=F64)).item()


def test_the_linear_path_joins_its_samples():
    path = paths.linear(T, X)
    assert [value(path, s) for s in (0.0, 0.25, 0.5, 1.0, 1.75, 2.0)] == pytest.approx([1, 2, 3, 1, -0.5, 0])
    assert path.continuous


def test_the_held_path_keeps_each_sample_until_the_next():
    path = paths.hold(T, X)
    assert [value(path, s) for s in (0.0, 0.49, 0.5, 1.49, 1.5, 2.0)] == pytest.approx([1, 1, 3, 3, -1, -1])
    assert not path.continuous


def test_cutting_a_path_at_more_times_changes_no_value():
    times = torch.cat([T, torch.tensor([0.2, 0.9, 1.7], dtype=F64)]).sort().values
    for path in (paths.linear(T, X), paths.hold(T, X)):
        cut = path.on(times)
        assert cut.times is times
        for s in torch.linspace(0, 2, 37, dtype=F64):
            assert cut(s).item() == pytest.approx(path(s).item(), abs=1e-14)


def test_a_path_keeps_its_kind_where_it_is_cut_or_cast():
    amplitude = X[:, 0]
    made = {
        "linear": paths.linear(T, X),
        "hold": paths.hold(T, X),
        "constant": paths.heaviside(T, amplitude),
        "jumps": paths.Path(T, "jumps", X[:, :-1], X[:, 1:] + 1),
    }
    times = torch.cat([T, torch.tensor([0.2, 0.9, 1.7], dtype=F64)]).sort().values
    for kind, path in [*made.items(), ("hold", paths.pulse(T, amplitude, stop=0.8))]:
        cut = path.on(torch.cat([path.times, times]).unique())
        for each in (path, cut, path.mapped(Tensor.float), cut.mapped(Tensor.float)):
            assert each.kind == kind
            assert each.start.shape == each.end.shape == (1, each.times.numel() - 1, 1)
            assert each.continuous == torch.equal(each.end[:, :-1], each.start[:, 1:])
        for k in range(cut.times.numel() - 1):
            piece = cut.interval(k)
            middle = piece.times.mean()
            assert piece.times.numel() == 2
            assert piece(middle).item() == pytest.approx(path(middle).item(), abs=1e-14)


def test_gradients_reach_the_samples_of_a_cut_path():
    times = torch.cat([T, torch.tensor([0.2, 0.9, 1.7], dtype=F64)]).sort().values
    for make in (paths.linear, paths.hold, lambda t, x: paths.heaviside(t, x[:, 0]), lambda t, x: paths.pulse(t, x[:, 0], 0.8)):
        x = X.clone().requires_grad_()

        def total(x=x, make=make):
            path = make(T, x)
            cut = path.on(torch.cat([path.times, times]).unique())
            return sum(cut(s)[0, 0] * (1 + s) for s in torch.linspace(0, 2, 13, dtype=F64))

        (gradient,) = torch.autograd.grad(total(), x)
        assert torch.allclose(gradient, central_difference(total, x), atol=1e-8)


def test_a_heaviside_path_is_constant_and_a_pulse_ends_where_told():
    amplitude = torch.tensor([[2.0, -1.0]], dtype=F64)
    assert torch.equal(paths.heaviside(T, amplitude)(T[2]), amplitude)
    pulse = paths.pulse(T, amplitude, stop=0.8)
    assert 0.8 in pulse.times.tolist()
    assert torch.equal(pulse(torch.tensor(0.79)), amplitude)
    assert torch.equal(pulse(torch.tensor(0.8, dtype=F64)), torch.zeros_like(amplitude))


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="expected one of linear, hold"):
        paths.interpolate(T, X, "cubic")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, x: paths.linear(t, x.tolist()), "x is a list, expected a Tensor"),
        (lambda t, x: paths.hold(t, x[..., :0]), "x must be a tensor"),
        (lambda t, x: paths.heaviside(t, 3.0), "amplitude is a float, expected a Tensor"),
        (lambda t, x: paths.pulse(t, x[:, 0, :0], 0.5), "amplitude must be a tensor"),
    ],
)
def test_what_makes_no_path_is_refused_in_one_line(make, message):
    t, x = torch.linspace(0, 1, 5, dtype=F64), torch.ones(2, 5, 1, dtype=F64)
    with pytest.raises(ValueError, match=message) as caught:
        make(t, x)
    assert "\n" not in str(caught.value)
