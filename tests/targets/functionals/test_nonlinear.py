from __future__ import annotations

import pytest
import torch

from targets import ConvolutionalFunctional, NonlinearFunctional, StepResponseFunctional, inputs, kernels

EVEN = torch.linspace(0, 20, 41, dtype=torch.float64)


@pytest.mark.parametrize("psi", ["tanh", "sigmoid", "square", "cube", lambda y: torch.sin(y) + 1])
def test_a_nonlinear_functional_transforms_and_knows_its_rate(psi) -> None:
    inner = ConvolutionalFunctional(kernels.polynomial())
    H = NonlinearFunctional(inner, psi)
    assert isinstance(H, StepResponseFunctional)
    assert H.input_size == 1
    assert H.output_size == 1
    assert (H(torch.zeros(41, 1, dtype=torch.float64), EVEN) == 0).all()
    amplitude = torch.tensor([0.7], dtype=torch.float64)
    h = 1e-5
    t = EVEN[1:]
    difference = (H.step(t + h, amplitude) - H.step(t - h, amplitude)) / (2 * h)
    torch.testing.assert_close(H.rate(t, amplitude), difference, rtol=0, atol=1e-9)


def test_nonlinearities_on_one_another_act_in_their_order() -> None:
    inner = ConvolutionalFunctional(kernels.sine())
    H = NonlinearFunctional(NonlinearFunctional(inner, "tanh"), "square")
    x, amplitude = inputs.white_noise(EVEN, 2), torch.tensor([0.7], dtype=torch.float64)
    assert H.innermost is inner
    torch.testing.assert_close(H(x, EVEN), inner(x, EVEN).tanh().square())
    y, rate = inner.step(EVEN, amplitude), inner.rate(EVEN, amplitude)
    torch.testing.assert_close(H.transform(y), H.step(EVEN, amplitude))
    torch.testing.assert_close(H.rate(EVEN, amplitude), 2 * y.tanh() * (1 - y.tanh() ** 2) * rate)
    assert H.quadrature_error == inner.quadrature_error


def test_rates_are_differentiable_in_the_amplitude_where_it_asks_for_it() -> None:
    H = NonlinearFunctional(ConvolutionalFunctional(kernels.polynomial()), "tanh")
    amplitude = torch.tensor([[0.7], [-0.2]], dtype=torch.float64)
    assert not H.rate(EVEN[:5], amplitude).requires_grad
    assert torch.autograd.gradcheck(lambda x: H.rate(EVEN[:5], x), amplitude.requires_grad_())


@pytest.mark.parametrize("psi", ["tanh", "cube"])
def test_gradients_with_respect_to_the_input_are_those_of_finite_differences(psi: str) -> None:
    H, few = NonlinearFunctional(ConvolutionalFunctional(kernels.two_part()), psi), EVEN[:9]
    assert torch.autograd.gradcheck(lambda x: H(x, few), inputs.white_noise(few, 2, seed=9).requires_grad_())


@pytest.mark.parametrize("make", [lambda H: H, lambda H: NonlinearFunctional(H, "tanh")])
def test_whole_numbers_as_amplitudes_mean_the_same_as_floats(make) -> None:
    H = make(ConvolutionalFunctional(kernels.exponential()))
    for answer in (H.rate, H.step):
        torch.testing.assert_close(answer(EVEN, torch.tensor([[1], [2]])), answer(EVEN, torch.tensor([[1.0], [2.0]]).double()))
        torch.testing.assert_close(answer(EVEN, [[1], [2]]), answer(EVEN, torch.tensor([[1.0], [2.0]]).double()))
