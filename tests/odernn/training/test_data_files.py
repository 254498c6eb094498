from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from odernn import read_data

TIMES = np.linspace(0.0, 1.0, 5)
X = np.arange(15.0).reshape(3, 5)
Y = np.stack([X, -X], -1)
ARRAYS = {"t": TIMES, "x": X, "y": Y}


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def table(path: Path, text: str, name: str = "data.csv") -> Path:
    (path / name).write_text(text.strip() + "\n")
    return path / name


def test_npz_and_pt_hold_the_same_data(tmp_path: Path):
    torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, tmp_path / "data.pt")
    one, other = read_data(npz(tmp_path, **ARRAYS), seed=3), read_data(tmp_path / "data.pt", seed=3)
    assert (one.input_size, one.output_size) == (1, 2)
    assert one.x.dtype == torch.float64
    for name in ("t", "x", "y", "x_validation", "y_validation"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert {len(one.x), len(one.x_validation)} == {2, 1}


def test_a_file_may_say_what_validates(tmp_path: Path):
    split = read_data(npz(tmp_path, **ARRAYS, split=np.array([0, 1, 0])))
    assert torch.equal(split.x_validation[..., 0], torch.from_numpy(X[1:2]))
    mask = Y > 3
    given = read_data(npz(tmp_path, **ARRAYS, x_validation=X[:1], y_validation=Y[:1], mask_validation=mask[:1] | (Y[:1] == 0)))
    assert len(given.x) == 3
    assert given.mask is None
    assert given.mask_validation.sum() == 3
    longer = read_data(npz(tmp_path, **ARRAYS, t_validation=np.arange(4), x_validation=X[:, 1:], y_validation=Y[:, 1:]))
    assert longer.t_validation.tolist() == [0, 1, 2, 3]


def test_one_sequence_may_lack_its_axes(tmp_path: Path):
    data = read_data(npz(tmp_path, t=TIMES, x=X[0], y=X[0], mask=np.array([1, 1, 0, 1, 1])))
    assert data.x.shape == (1, 5, 1)
    assert data.mask[0, :, 0].tolist() == [True, True, False, True, False]


def test_a_table_may_have_gaps_and_sequences_of_all_lengths(tmp_path: Path):
    text = "sequence,t,x1,x2,y\na,0,1,2,\na,1,1,2,3\nb,0,5,6,NA\nb,1,5,6,7\nb,2,8,9,10\na,1.5,1,3,4\na,3,0,0,0\n"
    data = read_data(table(tmp_path, text), validation_fraction=0.5)
    whole = torch.cat([data.x, data.x_validation])
    times = torch.cat([data.t, data.t_validation])
    targets = torch.cat([data.y, data.y_validation])
    order = whole[:, 0, 0].argsort()
    assert times[order].tolist() == [[0, 1, 1.5, 3], [0, 1, 2, 3]]
    assert whole[order][1].tolist() == [[5, 6], [5, 6], [8, 9], [8, 9]]
    assert [[None if math.isnan(y) else y for y in row] for row in targets[order][..., 0].tolist()] == [
        [None, 3, 4, 0],
        [None, 7, 10, None],
    ]


def test_sequences_that_agree_in_their_times_share_them(tmp_path: Path):
    text = "sequence;t;x;y;split\n1;0;1;2;0\n1;1;1;2;0\n2;0;1;5;1\n2;1;1;5;1\n2;2;1;5;1\n"
    data = read_data(table(tmp_path, text))
    assert data.t.tolist() == [0, 1, 2]
    assert data.mask[0, :, 0].tolist() == [True, True, False]
    assert data.y_validation[0, :, 0].tolist() == [5, 5, 5]


def test_a_table_without_sequences_is_one(tmp_path: Path):
    data = read_data(table(tmp_path, "t,x,y\n0,1,1\n1,2,2\n2,3,3\n3,4,4\n"))
    assert data.x[0, :, 0].tolist() == [1, 2, 3, 4]
    assert data.mask_validation[0, :, 0].tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "array 'x' is missing, got 't', 'y'; expected 'x' \\(batch, time, input\\)"),
        ({"x": X[:, :4]}, r"'x' has shape \(3, 4\), expected \(batch, 5, input\)"),
        ({"y": Y[:2]}, r"'y' has shape \(2, 5, 2\), expected \(3, 5, output\)"),
        ({"t": np.tile(TIMES, (2, 1))}, r"'x' has shape \(3, 5\), expected \(2, 5, input\)"),
        ({"t": TIMES[::-1]}, "'t' is not increasing"),
        ({"t": TIMES * np.nan}, r"'t'\[0\] is not finite"),
        ({"x": np.where(X == 7, np.nan, X)}, "'x' is NaN or infinite in sequence 1 at time 2"),
        ({"y": np.where(X > 4, np.nan, X)}, "all targets y of sequence 1 are missing"),
        ({"x": X * 1j}, "'x' is a ndarray of shape .* complex128, expected"),
        ({"x": np.array([[1], [1, 2]], dtype=object)}, "array 'x' has dtype object"),
        ({"x": np.array([["a"] * 5] * 3)}, "'x' is a ndarray"),
        ({"mask": X}, "'mask' is .*expected bools or 0 and 1"),
        ({"x_val": X}, "array 'x_val' is unknown"),
        ({"y_validation": Y}, "array 'y_validation' needs 'x_validation'"),
        ({"x_validation": X}, "array 'y_validation' is missing"),
        ({"split": np.ones(3)}, "leaves nothing for training"),
        ({"split": np.zeros(3)}, "leaves nothing for validation"),
        ({"split": np.zeros(4)}, "'split' is"),
        ({"x": X[:0], "y": Y[:0]}, r"'x' has shape \(0, 5\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], message: str):
    arrays = {name: array for name, array in {**ARRAYS, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message) as caught:
        read_data(npz(tmp_path, **arrays))
    assert str(caught.value).startswith(str(tmp_path / "data.npz"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,x\n0,1\n1,2", "column 'y' is missing, got t, x"),
        ("t,x,y\n0,1,1", "has 1 rows below its header"),
        ("t,x,y\n0,1,1\n1,,2\n", "row 3: x is empty, expected a number, since x drives the model"),
        ("t,x,y\n0,1,1\n,1,2\n", "row 3: t is empty"),
        ("t,x,y\n0,1,1\n1,two,2\n", "row 3: x is 'two', expected a finite number"),
        ("t,x,y\n0,1,1\n1,2,inf\n", "row 3: y is 'inf'"),
        ("t;x;y\n0;1;1\n1;2,5;2\n", "row 3: x is '2,5', expected a finite number with a decimal point"),
        ("t,x,y\n0,1,1\n\n1,2\n", "row 4 has 2 cells, expected 3"),
        ("t,x,y\n0,1,1\n1,2,1\n0,1,1\n", "t is not increasing: 1 in row 3, 0 in row 4; .*column 'sequence'"),
        ("sequence,t,x,y\na,0,1,1\na,0,1,1\n", "t of sequence 'a' is not increasing"),
        ("sequence,t,x,y\na,0,1,1\na,1,1,1\nb,0,1,1\n", "sequence 'b' has one row"),
        ("t,x,y,z\n0,1,1,1\n1,1,1,1", "column 'z' is unknown"),
        ("t,x,x,y\n0,1,1,1\n1,1,1,1", "column 'x' is there twice"),
        ("t,x1,x3,y\n0,1,1,1\n1,1,1,1", "not counted x1, x2"),
        ("0,1,1\n1,2,2", "the first row holds numbers"),
        ("", "is missing"),
        ("sequence,t,x,y,split\na,0,1,1,0\na,1,1,1,1\n", "column 'split' changes within sequence 'a'"),
    ],
)
def test_tables_that_do_not_fit_are_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        read_data(table(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "data.csv"))
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="path is a int"):
        read_data(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no such file"):
        read_data(tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"expected a file that ends in \.npz, \.pt, \.csv"):
        read_data(tmp_path / "data.mat")
    for name in ("data.npz", "data.pt"):
        table(tmp_path, "t,x,y", name)
        with pytest.raises(ValueError, match=r"data\.\w+: (is no|cannot be read)"):
            read_data(tmp_path / name)
    whole = npz(tmp_path, **ARRAYS).read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[:200] + bytes(80) + whole[280:])
    with pytest.raises(ValueError, match="cannot be read"):
        read_data(tmp_path / "data.npz")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, expected a dict"):
        read_data(tmp_path / "list.pt")
    (tmp_path / "data.csv").write_bytes(b"t,x,y\n\xff\xfe,1,1\n")
    with pytest.raises(ValueError, match="cannot be read"):
        read_data(tmp_path / "data.csv")


def test_a_fraction_beside_a_split_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the file says which sequences validate"):
        read_data(npz(tmp_path, **ARRAYS, split=np.array([0, 1, 0])), validation_fraction=0.3)
