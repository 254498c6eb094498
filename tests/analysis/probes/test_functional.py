"""Probes of functionals against their kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.memory import memory_function
from analysis.probes import PROBES
from targets import KERNELS, ConvolutionalFunctional, NonlinearFunctional, kernels

DOUBLE = torch.float64
T = torch.linspace(0, 20, 81, dtype=DOUBLE)


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_linear_functional_has_the_memory_of_its_kernel_for_every_probe(name, probe):
    H = ConvolutionalFunctional(KERNELS[name]())
    M = memory_function(H, T, probe=probe)
    torch.testing.assert_close(M.values, H.kernel(T).abs(), rtol=0, atol=1e-8)
    assert M.probe == probe
    assert M.maximizer.shape == (81, 1)


def test_a_vector_functional_sums_the_moduli_of_its_kernels_and_names_the_sign_vector():
    rho = kernels.stack([kernels.exponential(), kernels.sine(), kernels.polynomial(1.1)])
    M = memory_function(ConvolutionalFunctional(rho), T)
    torch.testing.assert_close(M.values, rho(T).abs().sum(-1), rtol=0, atol=1e-8)
    torch.testing.assert_close((rho(T) * M.maximizer).sum(-1), M.values)


def test_a_static_nonlinearity_multiplies_by_its_slope():
    H = ConvolutionalFunctional(kernels.exponential())
    M = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5])
    response = 0.5 * (1 - torch.exp(-T))
    torch.testing.assert_close(M.values, torch.exp(-T) * (1 - torch.tanh(response) ** 2), rtol=1e-8, atol=1e-12)
    impulse = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5], probe="impulse")
    torch.testing.assert_close(impulse.values, torch.tanh(0.5 * torch.exp(-T)) / 0.5, rtol=1e-8, atol=1e-12)
    held = memory_function(NonlinearFunctional(H, "tanh"), T, amplitudes=[0.5], probe="reversed")
    left = 0.5 * torch.exp(-T)
    torch.testing.assert_close(held.values, torch.exp(-T) * (1 - torch.tanh(left) ** 2), rtol=1e-8, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0.05, 2.0)), min_size=1, max_size=3), st.sampled_from(PROBES))
def test_the_memory_of_a_convolution_is_the_modulus_of_its_kernel_whatever_that_is(terms, probe):
    parts = [kernels.from_callable(lambda t, c=c, rate=rate: c * np.exp(-rate * t)) for c, rate in terms]
    rho = parts[0] if len(parts) == 1 else kernels.stack(parts)
    expected = sum(abs(c) * torch.exp(-rate * T) for c, rate in terms)
    values = memory_function(ConvolutionalFunctional(rho), T, probe=probe).values
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=0)
