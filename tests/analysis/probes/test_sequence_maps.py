"""Systems as maps between sequences: masks, wrong shapes, and what is not causal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.memory import memory_function
from analysis.probes import PROBES

DOUBLE = torch.float64


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_is_given_its_causal_mask(batch_first):
    layer = torch.nn.TransformerEncoderLayer(4, 1, 8, batch_first=batch_first, dtype=DOUBLE)
    # without positions it tells a step from a constant only by what came before
    M = memory_function(layer, torch.arange(6), amplitudes=[1.0], ascent_steps=2, warmup=5)
    assert M.maximizer.shape == (6, 4)
    assert (M.values > 0).all()

    def unmasked(x):
        return layer(x) if batch_first else layer(x.transpose(0, 1)).transpose(0, 1)

    layer.eval()
    with pytest.raises(ValueError, match="not causal"):
        memory_function(unmasked, torch.arange(6), input_size=4)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (lambda x: x.cumsum(1) * torch.nan, "NaN or infinite outputs"),
        (lambda x: x.cumsum(1).exp() * torch.inf, "NaN or infinite outputs"),
        (lambda x: (x > 0).long(), "int64 values"),
        (lambda x: x.cumsum(1) + 1j, "complex128 values"),
        (torch.nn.LSTM, "the class LSTM"),
    ],
)
def test_systems_without_finite_real_outputs_are_named(system, message):
    with pytest.raises(ValueError, match=message):
        memory_function(system, torch.arange(5, dtype=torch.float64))


def test_a_module_with_dropout_that_a_function_hides_is_told_how_to_help_itself():
    module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)).train()
    with pytest.raises(ValueError, match=r"call \.eval\(\)"):
        memory_function(lambda x: module(x), torch.arange(5, dtype=torch.float32))
    assert memory_function(module, torch.arange(5, dtype=torch.float32)).values.isfinite().all()
    assert module.training


def test_a_value_error_of_the_users_own_system_is_said_to_be_of_it():
    def system(x):
        raise ValueError("my own words")

    with pytest.raises(ValueError, match=r"system failed on an input .*ValueError: my own words"):
        memory_function(system, torch.arange(20.0))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(-3, 5), st.floats(0.1, 1.0) | st.floats(-1.0, -0.1), min_size=1, max_size=4))
def test_a_filter_has_a_memory_function_if_and_only_if_it_is_causal(weights):
    """y_t = sum_k w_k x_{t-k}, of which k < 0 needs the future."""

    def system(x):
        n = x.shape[1]
        padded = torch.nn.functional.pad(x, (0, 0, 5, 5))
        return sum(w * padded[:, 5 - k : 5 - k + n] for k, w in weights.items())

    steps = torch.arange(7, dtype=DOUBLE)
    if min(weights) < 0:
        with pytest.raises(ValueError, match="system is not causal"):
            memory_function(system, steps)
    else:
        expected = torch.tensor([abs(weights.get(k, 0.0)) for k in range(7)], dtype=DOUBLE)
        for probe in PROBES:
            torch.testing.assert_close(memory_function(system, steps, probe=probe).values, expected, rtol=0, atol=1e-12)
