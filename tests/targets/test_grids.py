"""The one check of times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from targets import grids

INCREASING = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8, unique=True).map(sorted)


@given(INCREASING)
def test_times_keep_their_values_in_whatever_form_they_come(values):
    expected = torch.tensor(values, dtype=torch.float64)
    for t in (values, np.array(values), expected):
        assert torch.equal(grids.tensor(t), expected)
    assert grids.times(expected).tolist() == values


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8).filter(lambda t: any(b <= a for a, b in zip(t, t[1:]))))
def test_times_that_do_not_increase_are_refused(values):
    with pytest.raises(ValueError, match=r"t is not increasing \(t\["):
        grids.tensor(values, "t")


def test_a_tensor_stays_as_it_is_with_its_graph():
    t = torch.tensor([0.0, 1.0], requires_grad=True)
    assert grids.tensor(t) is t
    assert grids.tensor(torch.arange(3)).dtype == torch.float64


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([0.0, np.nan], r"times\[1\] is not finite"),
        (torch.zeros(2, 2), "has shape"),
        ([1.0], "with at least 2 times"),
        ("no", "expected a tensor of real numbers"),
        (torch.zeros(2, dtype=torch.complex64), "dense tensor of real numbers"),
    ],
)
def test_what_are_no_times_is_refused(t, message):
    with pytest.raises(ValueError, match=message):
        grids.tensor(t, least=2)


def test_times_whose_rounding_is_a_large_part_of_their_steps_are_refused():
    fine = 1e5 + torch.linspace(0, 10, 101, dtype=torch.float64)
    grids.check_resolution(fine)
    with pytest.raises(ValueError, match=r"float32 is known to 0.01 around t = 100010, too coarse for steps of 0.1"):
        grids.check_resolution(fine.float())
