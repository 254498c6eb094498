"""The figure of memory around a background: that it is drawn from its jobs, and that its claims can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.image import imread

from analysis.papers import figures
from analysis.papers.echo_states.background import AMPLITUDES, MODELS
from analysis.papers.engine.figure import Options
from odernn import json_values

SMALL = {"units": 3, "horizon": 20.0, "samples": 41, "sequences": 4}


@pytest.fixture(scope="module")
def data():
    figure = figures()["esp-background"]
    results = []
    for job in figure.jobs(Options(quick=True)):
        if job.settings["seed"] == 0:
            job = replace(job, settings={**job.settings, **SMALL})
            results.append((job, json_values.decode(json_values.encode(job.run()))))
    return json_values.decode(json_values.encode(figure.assemble(results)))


def outcome(data, part):
    (found,) = [claim.outcome for claim in figures()["esp-background"].claims(data) if part in claim.statement]
    return found


@pytest.mark.slow
def test_it_is_drawn_with_a_table_of_every_lag(data, tmp_path):
    figure = figures()["esp-background"]
    figure.plot(data, tmp_path / "picture.png")
    assert min(imread(tmp_path / "picture.png").shape[:2]) > 300
    assert len(figure.rows(data)) == len(MODELS) * len(AMPLITUDES) * 41


@pytest.mark.slow
def test_its_claims_fall_with_what_they_say(data):
    part = "does not depend on the input"
    assert outcome(data, part) == "held"
    moved = [{**run, "exponents": [2 * e for e in run["exponents"]]} if turned(run, "ssm") else run for run in data["runs"]]
    assert outcome({"runs": moved}, part) == "failed"
    grown = [{**run, "exponents": [0.1]} if turned(run, "lstm") else run for run in data["runs"]]
    assert outcome({"runs": grown}, "forgets its state") == "failed"
    falling = [{**run, "geometric": [10.0**-k for k in range(41)]} if turned(run, "transformer") else run for run in data["runs"]]
    assert outcome({"runs": falling}, "does not forget with the lag") == "failed"
    larger = [{**run, "rank": [17]} if turned(run, "ssm") else run for run in data["runs"]]
    assert outcome({"runs": larger}, "no rank exceeds its size") == "failed"


def turned(run, model):
    return run["model"] == model and run["amplitude"] == AMPLITUDES[-1]
