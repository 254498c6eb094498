from __future__ import annotations

import pytest
import torch
from problems import F64

from odernn import ContinuousRNN
from odernn.losses import mse, relative_l2, stability_penalty, time_weighted_mse, time_weights


def test_time_weights_grow_as_the_power_and_have_mean_one():
    w = time_weights(5)
    assert torch.allclose(w / w[0], torch.tensor([1.0, 4.0, 9.0, 16.0, 25.0], dtype=F64))
    assert w.mean().item() == pytest.approx(1)


def test_the_time_weighted_error_weighs_prediction_and_target_before_the_square():
    y, target = torch.randn(3, 5, 2, dtype=F64), torch.randn(3, 5, 2, dtype=F64)
    w = time_weights(5)
    expected = sum(((w[k] * (y - target)[:, k]) ** 2).mean() for k in range(5)) / 5
    assert time_weighted_mse(y, target).item() == pytest.approx(expected.item())


def test_errors_are_one_number_a_member():
    y, target = torch.randn(7, 3, 5, 2, dtype=F64), torch.randn(3, 5, 2, dtype=F64)
    for error in (mse, relative_l2, time_weighted_mse):
        assert error(y, target).shape == (7,)
        assert torch.allclose(error(y, target)[2], error(y[2], target))
    assert relative_l2(2 * target, target).item() == pytest.approx(1)


def test_the_stability_penalty_vanishes_from_the_margin_on_and_pushes_towards_it():
    model = ContinuousRNN(1, 4, 1, recurrence="dense", dtype=F64)
    margin = model.stability_margin().item()
    assert stability_penalty(model, 0.9 * margin).item() == 0
    penalty = stability_penalty(model, margin + 0.5)
    assert penalty.item() == pytest.approx(0.25)
    penalty.backward()
    with torch.no_grad():
        W = model.layer_weights[0].recurrence.W
        W -= 0.01 * W.grad
    assert model.stability_margin().item() > margin


@pytest.mark.parametrize("error", [mse, relative_l2, time_weighted_mse])
@pytest.mark.parametrize(
    ("y", "target"),
    [
        ((3, 5, 1), (3, 5, 3)),
        ((3, 5, 3), (3, 5, 1)),
        ((3, 5, 1), (5,)),
        ((3, 5, 1), (5, 1)),
        ((3, 5, 1), (1, 5, 1)),
        ((3, 5, 1), (3, 1, 1)),
        ((3, 5, 1), (7, 3, 5, 1)),
        ((7, 3, 5, 1), (1, 3, 5, 1)),
        ((0, 5, 1), (0, 5, 1)),
        ((5, 1), (5, 1)),
    ],
)
def test_nothing_but_the_ensemble_is_broadcast(error, y, target):
    with pytest.raises(ValueError, match=r"y has shape .* target"):
        error(torch.ones(y), torch.zeros(target))


@pytest.mark.parametrize(
    "target", [None, [[[1.0]]], torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.complex64)]
)
def test_a_target_of_another_kind_is_refused(target):
    with pytest.raises(ValueError, match="target is"):
        mse(torch.ones(1, 1, 1), target)


def test_the_relative_error_of_a_zero_target_is_infinite_and_never_nan():
    zero = torch.zeros(3, 5, 1)
    assert relative_l2(zero, zero).item() == relative_l2(zero + 1, zero).item() == torch.inf
