from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from odernn import ContinuousRNN, Fused, TorchDiffEq
from targets import TeacherFunctional, inputs

EVEN = torch.linspace(0, 20, 41, dtype=torch.float64)
UNEVEN = torch.sort(20 * torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).values


def lstm(**options) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(2, 3, batch_first=True, dtype=torch.float64, **options)


def test_a_teacher_answers_like_its_module_and_leaves_it_alone() -> None:
    module = lstm()
    module.train()
    before = copy.deepcopy(module.state_dict())
    x = inputs.white_noise(EVEN, 4, channels=2).requires_grad_()
    H = TeacherFunctional(module, input_size=2)
    y = H(x, EVEN)
    torch.testing.assert_close(y, module(x)[0])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not H(x.detach(), EVEN).requires_grad


def test_gradients_of_a_teacher_with_respect_to_the_input_are_those_of_finite_differences() -> None:
    few = EVEN[:4]
    H = TeacherFunctional(lstm(), subtract_zero_input=True)
    x = inputs.white_noise(few, 2, channels=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: H(x, few), x)


def test_a_teacher_can_subtract_its_zero_input_response() -> None:
    zero = torch.zeros(3, len(EVEN), 2, dtype=torch.float64)
    assert TeacherFunctional(lstm())(zero, EVEN).abs().max() > 1e-3
    assert TeacherFunctional(lstm(), subtract_zero_input=True)(zero, EVEN).abs().max() < 1e-15  # rounding


def test_a_module_hidden_in_a_callable_gets_no_graph() -> None:
    module = lstm()
    x = inputs.white_noise(EVEN, 2, channels=2)
    assert not TeacherFunctional(lambda x: module(x))(x, EVEN).requires_grad
    assert TeacherFunctional(lambda x: module(x))(x.requires_grad_(), EVEN).requires_grad


def test_a_teacher_takes_plain_callables_times_and_leading_axes() -> None:
    x = inputs.white_noise(UNEVEN, 6, channels=2)
    H = TeacherFunctional(lambda x, t: x.cumsum(dim=1) * t[:, None], pass_times=True)
    expected = x.cumsum(dim=1) * UNEVEN[:, None]
    torch.testing.assert_close(H(x, UNEVEN), expected)
    torch.testing.assert_close(H(x.reshape(2, 3, -1, 2), UNEVEN), expected.reshape(2, 3, -1, 2))
    torch.testing.assert_close(H(x[0], UNEVEN), expected[0])


def test_a_teacher_hands_its_options_to_every_call_of_its_module() -> None:
    def scaled(x: torch.Tensor, t: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
        return factor * x + 1

    x = inputs.white_noise(EVEN, 4)
    H = TeacherFunctional(scaled, pass_times=True, subtract_zero_input=True, options={"factor": 3.0})
    torch.testing.assert_close(H(x, EVEN), 3 * x)
    model = ContinuousRNN(1, 4, 1, dtype=torch.float64, seed=0)
    for solver in (Fused("euler", check=False), TorchDiffEq("rk4", adjoint=False, check=False)):
        H = TeacherFunctional(model, pass_times=True, options={"solver": solver})
        assert torch.equal(H(x, EVEN), model(x, EVEN, solver=solver))
    with pytest.raises(ValueError, match="options is"):
        TeacherFunctional(model, options="solver")
