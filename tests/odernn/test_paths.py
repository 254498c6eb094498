from __future__ import annotations

import pytest
import torch
from problems import F64

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
