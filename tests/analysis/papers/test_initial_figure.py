"""The figure of initial spectra: its claims on the stored data, and that each can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from analysis.papers import figures
from analysis.papers.compute.initial_readouts import initial_readouts
from odernn import json_values

STORED = Path(__file__).parents[3] / "reproduction" / "post-initial" / "data.json"
FIGURE = figures()["post-initial"]
POWER = 0


@pytest.fixture
def data():
    return json_values.loads(STORED.read_bytes())


def outcomes(data):
    return [claim.outcome for claim in FIGURE.claims(data)]


def change(data, name, key, factor, kernel=POWER, **which):
    for one in data["readouts"]:
        if one["name"] == name and all(one[setting] == value for setting, value in which.items()):
            for fits in one["own"]:
                fits[kernel][key] *= factor


def test_the_stored_claims_hold(data):
    assert set(outcomes(data)) == {"held"}


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        (0, [("geometric", "error", 2.0, {"m": 24, "horizon": 1e3})]),
        (1, [("linear", "error", 3.0, {"m": 32, "horizon": 100.0})]),
        (2, [("log_uniform", "error", 1e-3, {"m": 8})]),
        (3, [("geometric", "error", 1e3, {"m": 16, "horizon": 100.0})]),
        (4, [("s4d_inv", "error", 9.0, {"m": 8})]),
        (5, [("lru", "error", 1e-3, {"m": 16, "horizon": 1e3})]),
        (6, [("hippo_legs", "error", 2.0, {"m": 16})]),
        (6, [("hippo_legs", "size", 1e12, {"m": 16})]),
        (7, [("linear", "size", 1e-12, {"kernel": 2, "m": 16})]),
    ],
)
def test_each_claim_fails_on_other_data(data, claim, changed):
    for name, key, factor, which in changed:
        change(data, name, key, factor, **which)
    assert outcomes(data)[claim] == "failed"


def test_a_job_gives_what_the_figure_draws(data, tmp_path):
    found = initial_readouts("lru", 4, 10.0, ["exponential:base=0.9", "shift"], 1.0, [2.0], [0, 1])
    assert [len(fits) for fits in found["own"]] == [2, 2]
    for own, tuned in zip(found["own"], found["tuned"]):
        for fit, (error, factor) in zip(own, tuned):
            assert error <= fit["error"]
            assert (error == fit["error"]) == (factor == 1)
    FIGURE.plot(data, tmp_path / "picture.png")
    assert min(imread(tmp_path / "picture.png").shape[:2]) > 300
    assert "geometric" in FIGURE.table(data)
    assert len(FIGURE.rows(data)) > 100
    assert "factor" in FIGURE.findings(data)
