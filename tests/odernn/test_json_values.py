from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odernn import json_values
from odernn.runs import RunDirectory

TEXT = st.text(max_size=5).filter(lambda text: text not in ("inf", "-inf", "nan"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=5), part, max_size=4),
    max_leaves=15,
)


@given(PLAIN)
def test_plain_values_come_back_from_their_text_exactly(value):
    text = json_values.dumps(value)
    json.loads(text, parse_constant=pytest.fail)
    # repr tells -0.0 from 0.0 and an int from a float, and nan is nan
    assert repr(json_values.loads(text)) == repr(value)


@given(st.sampled_from([np.float16, np.float32, np.float64]), st.lists(st.floats(width=16), min_size=1, max_size=4))
def test_numbers_of_numpy_and_torch_come_back_exactly(dtype, values):
    array = np.array(values, dtype=dtype)
    for numbers in (array, torch.from_numpy(array.copy()), tuple(array), list(array)):
        back = np.array(json_values.loads(json_values.dumps(numbers)), dtype=dtype)
        np.testing.assert_array_equal(back, array)
        signed = ~np.isnan(array)
        np.testing.assert_array_equal(np.signbit(back[signed]), np.signbit(array[signed]))


def test_values_come_back_as_numbers_and_lists():
    value = {
        "a": np.array([1.0, math.inf]),
        "b": (torch.tensor(2), -math.inf),
        "c": None,
        "d": "text",
        "e": np.float64(math.nan),
        "f": np.uint64(2**64 - 1),
        "g": np.bool_(True),
        "h": np.zeros((2, 0)),
    }
    encoded = json_values.encode(value)
    json.dumps(encoded, allow_nan=False)
    back = json_values.decode(encoded)
    assert math.isnan(back.pop("e"))
    assert back == {"a": [1.0, math.inf], "b": [2, -math.inf], "c": None, "d": "text", "f": 2**64 - 1, "g": True, "h": [[], []]}
    assert back["g"] is True


def test_text_that_reads_like_a_number_comes_back_as_one_and_keys_stay_text():
    assert json_values.loads(json_values.dumps({"inf": "inf"})) == {"inf": math.inf}


def test_what_has_a_to_dict_is_written_as_that():
    class Value:
        def to_dict(self):
            return {"a": math.inf}

    assert json_values.dumps([Value()]) == '[{"a": "inf"}]'


def test_nothing_that_is_written_holds_words_that_json_lacks(tmp_path):
    assert json_values.dumps({"a": math.inf}) == '{"a": "inf"}'
    with pytest.raises(ValueError, match="NaN is no JSON value"):
        json_values.loads('{"a": NaN}')
    run = RunDirectory.create(tmp_path / "run", {"experiment": {}})
    run.write_summary({"error": math.inf})
    json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    "value",
    [{1: 2}, {"a": object()}, {"a": {1, 2}}, np.array([1j]), torch.tensor(1j), np.longdouble(1), b"1", np.datetime64(1, "s")],
)
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match="JSON has"):
        json_values.encode(value)
