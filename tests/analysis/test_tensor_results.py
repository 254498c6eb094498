"""Results that hold tensors come back from their JSON as they were."""

from __future__ import annotations

import json

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import FixedPoints, LyapunovExponents, MemoryCapacity, MemoryFunction, memory_function
from odernn import ContinuousRNN

DTYPES = st.sampled_from([torch.float64, torch.float32])
SIZES = st.integers(0, 3)


@st.composite
def tensors(draw, *shape, dtype=None):
    """A tensor of any floats, nan and inf among them."""
    dtype = draw(DTYPES) if dtype is None else dtype
    real = dtype.to_real() if dtype.is_complex else dtype
    width = 64 if real == torch.float64 else 32
    pairs = (*shape, 2) if dtype.is_complex else shape
    count = int(torch.tensor(pairs).prod())
    values = torch.tensor(draw(st.lists(st.floats(width=width), min_size=count, max_size=count)), dtype=real).reshape(pairs)
    return torch.view_as_complex(values) if dtype.is_complex else values


@st.composite
def results(draw):
    n, m = draw(SIZES), draw(st.integers(1, 3))
    ensemble = draw(st.sampled_from([(), (2,), (2, 1)]))
    rate = draw(st.none() | st.floats())
    stability = tuple(draw(st.lists(st.sampled_from(["stable", "unstable"]), min_size=n, max_size=n)))
    basins = torch.arange(n)
    M = [draw(tensors(*shape)) for shape in ((n,), (*ensemble, n), (*ensemble, n, m), ensemble)]
    points, spectra, residuals = (draw(tensors(*s)) for s in ((n, m), (n, m), (n,)))
    spectra = draw(tensors(n, m, dtype=draw(st.sampled_from([torch.complex128, torch.complex64]))))
    return draw(
        st.sampled_from(
            [
                MemoryFunction(
                    *M, draw(st.sampled_from(["heaviside", "nan"])), "inf", n, rate, draw(st.sampled_from([None, (1.0,)]))
                ),
                MemoryCapacity(draw(tensors(n)), draw(tensors(n)), draw(st.floats()), n, 7),
                LyapunovExponents(draw(tensors(m)), draw(tensors(m)), draw(tensors(n)), draw(tensors(n, m))),
                FixedPoints(points, spectra, stability, residuals, basins, 3),
            ]
        )
    )


@settings(max_examples=60, deadline=None)
@given(results())
def test_a_result_comes_back_from_its_text_as_it_was(result):
    again = type(result).from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert again == result
    for name, value in vars(result).items():
        other = getattr(again, name)
        assert type(value) is type(other)
        if isinstance(value, torch.Tensor):
            assert (value.dtype, value.shape) == (other.dtype, other.shape)
            assert torch.equal(torch.nan_to_num(value, 7.0), torch.nan_to_num(other, 7.0))


def test_the_repr_is_short():
    model = ContinuousRNN(1, 2, 1, seed=0, dtype=torch.float64)
    text = repr(memory_function(model, torch.arange(300, dtype=torch.float64)))
    assert text.startswith("MemoryFunction(ContinuousRNN, heaviside, |x| = 0.1, 1, 300 times: M(0) = ")
    assert len(text) < 250
    assert "\n" not in text
