from __future__ import annotations

import io
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from odernn.seals import Damaged, opened_json, opened_weights, sealed_json, sealed_weights

STATE = {"c": torch.arange(3.0), "history": [{"epoch": 1, "loss": 0.25}], "none": None, "pair": (0.9, 0.999)}
OF = "0123456789abcdef"


def plainly_saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_sealed_weights_are_what_they_were_and_what_plain_torch_reads(tmp_path):
    content = sealed_weights(STATE, OF)
    (tmp_path / "best.pt").write_bytes(content)
    state, of, sealed = opened_weights(content)
    for found in (state, torch.load(tmp_path / "best.pt", weights_only=True), torch.load(tmp_path / "best.pt", mmap=True)):
        assert torch.equal(found["c"], STATE["c"])
        assert {key: found[key] for key in ("history", "none", "pair")} == {
            key: STATE[key] for key in ("history", "none", "pair")
        }
    assert (of, sealed) == (OF, True)
    assert opened_weights(sealed_weights(STATE))[1:] == (None, True)


def test_every_flipped_bit_of_sealed_weights_is_found():
    content = sealed_weights({"c": torch.zeros(1)}, OF)
    believed = []
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            try:
                opened_weights(bytes(damaged))
            except Damaged:
                continue
            believed.append((place, bit))
    assert believed == []


_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.none() | st.booleans() | _numbers | st.text(max_size=8)
_nested = st.recursive(_values, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3))
_objects = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "sha256"), _nested, max_size=4)


def flipped(content: bytes, data: st.DataObject) -> bytes:
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    damaged = bytearray(content)
    damaged[place] ^= data.draw(st.integers(1, 255), label="flipped bits")
    return bytes(damaged)


@settings(deadline=None, max_examples=50)
@given(values=_objects, data=st.data())
def test_any_state_is_read_as_it_was_written_and_any_flipped_byte_is_refused(values, data) -> None:
    content = sealed_weights(values, OF)
    assert opened_weights(content) == (values, OF, True)
    with pytest.raises(Damaged):
        opened_weights(flipped(content, data))


@settings(deadline=None, max_examples=50)
@given(values=_objects, data=st.data())
def test_any_json_values_are_read_as_they_were_written_and_never_changed_under_their_seal(values, data) -> None:
    content = sealed_json(values)
    assert opened_json(content) == (values, True)
    try:
        found, sealed = opened_json(flipped(content, data))
    except Damaged:
        return
    assert not sealed or found == values


def test_every_truncation_and_what_follows_sealed_weights_is_found():
    content = sealed_weights({"c": torch.zeros(1)}, OF)
    for damaged in (*(content[:size] for size in range(len(content))), content + b"\0", content + content, b"\0" + content):
        with pytest.raises(Damaged):
            opened_weights(damaged)


def test_the_same_state_gives_the_same_bytes_also_when_it_was_loaded():
    content = sealed_weights(STATE, OF)
    assert sealed_weights(opened_weights(content)[0], OF) == content


def test_weights_without_a_seal_are_judged_by_the_checksums_of_their_archive():
    content = plainly_saved(STATE)
    assert opened_weights(content)[1:] == (None, False)
    place = content.index(STATE["c"].numpy().tobytes())
    damaged = content[:place] + b"\x01" + content[place + 1 :]
    assert torch.load(io.BytesIO(damaged), weights_only=True)["c"][0] != 0  # believed by torch
    with pytest.raises(Damaged, match="archive"):
        opened_weights(damaged)


def test_nothing_is_unpickled_that_could_run():
    class Runs:
        def __reduce__(self):
            return (print, ("ran",))

    with pytest.raises(Damaged, match="not a checkpoint"):
        opened_weights(plainly_saved({"c": Runs()}))


VALUES = {"kind": "odernn run", "horizon": 10.0, "points": 101, "kernel": "polynomial:exponent=1.5", "warm_start": None}


def test_a_sealed_json_file_may_be_laid_out_anew_but_not_changed():
    content = sealed_json(VALUES)
    assert opened_json(content) == (VALUES, True)
    assert opened_json(json.dumps(json.loads(content)).encode()) == (VALUES, True)
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            try:
                values, sealed = opened_json(bytes(damaged))
            except Damaged:
                continue
            # Without its seal under that very name there stands another entry in its place.
            assert (values, sealed) == (VALUES, True) or (not sealed and values.keys() > VALUES.keys())


def test_json_without_a_seal_says_so():
    assert opened_json(json.dumps(VALUES).encode()) == (VALUES, False)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"null", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff{}", b'{"a": 1', b"[" * 100_000]
)
def test_what_is_no_json_object_is_refused(content):
    with pytest.raises(Damaged):
        opened_json(content)
