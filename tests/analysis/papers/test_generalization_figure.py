from __future__ import annotations

import numpy as np
import pytest

from analysis.papers.compute.few_sequences import few_sequences
from analysis.papers.engine.figure import Options
from analysis.papers.generalization.measure import GEN_TAU

SMALL = {
    "target": "polynomial:exponent=1.5",
    "correlation": 0.1,
    "hidden_size": 4,
    "sequences": 4,
    "test_sequences": 50,
    "noise": 0.5,
    "epochs": 20,
    "learning_rate": 0.03,
    "seed": 0,
}


def made(b, weight, rescaled, seed, target):
    """A model as the claims want it: the gap grows with tau, which falls with lambda; of one seed and b on another scale."""
    tau = 10 * b**-0.5 * (1 + seed) / (1 + 100 * weight) * (1.1 if rescaled else 1)
    start, start_tau = (0.5 + 0.1 * b, 1.0) if rescaled else (b, 0.3)
    settings = {"target": target, "correlation": b, "weight": weight, "rescaled": rescaled, "seed": seed}
    results = {"start": start, "start_tau": start_tau, "tau": tau, "training": 0.1, "test": 0.1 + 0.01 * tau, "label": 1.0}
    return settings | results


def figures_data():
    jobs = GEN_TAU.jobs(Options())
    names = {"correlation": "b", "weight": "weight", "rescaled": "rescaled", "seed": "seed", "target": "target"}
    return {"models": [made(**{short: job.settings[name] for name, short in names.items()}) for job in jobs]}


def outcomes(data):
    return [claim.outcome for claim in GEN_TAU.claims(data)]


def test_claims_hold_on_data_made_for_them_and_the_figure_is_drawn(tmp_path):
    data = figures_data()
    assert outcomes(data) == ["held"] * 6
    GEN_TAU.plot(data, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(GEN_TAU.rows(data)) == len(data["models"]) == 144
    assert "0 of 36 single series" in GEN_TAU.findings(data)


def change_gaps(model, draw):
    model["test"] = model["training"] + draw.uniform(0.01, 1)


def change_tau(model, draw):
    model["tau"] *= 1 + 20 * model["weight"] ** 0.5


def change_start(model, draw):
    model["start"] *= 2 if model["rescaled"] else 1


def change_scales(model, draw):
    model["start"] = model["correlation"] ** 2 if model["rescaled"] else model["start"]


@pytest.mark.parametrize(
    ("change", "failing"),
    [(change_gaps, {0, 2, 3}), (change_tau, {1}), (change_start, {4}), (change_scales, {5})],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_claims_fail_on_other_data(change, failing):
    data, draw = figures_data(), np.random.default_rng(0)
    for model in data["models"]:
        change(model, draw)
    assert failing <= {index for index, outcome in enumerate(outcomes(data)) if outcome == "failed"}


def test_a_job_gives_its_numbers_again_and_the_test_does_not_depend_on_lambda():
    one, again, regularised = (few_sequences(**SMALL, weight=weight, rescaled=False) for weight in (0.0, 0.0, 0.1))
    assert one == again
    assert regularised["start"] == one["start"]
    assert regularised["tau"] < one["tau"]
    assert regularised["label"] == one["label"]


@pytest.mark.parametrize("target", ["polynomial:exponent=1.5", "middle"])
def test_a_rescaled_job_starts_with_tau_1(target):
    result = few_sequences(**{**SMALL, "target": target, "epochs": 1}, weight=0.01, rescaled=True)
    assert result["start_tau"] == pytest.approx(1, rel=1e-12)
    assert result["start"] <= 1
    assert all(np.isfinite(value) for value in result.values())


def test_quick_jobs_are_some_of_a_kind():
    quick, full = (GEN_TAU.jobs(Options(quick=quick)) for quick in (True, False))
    assert len(quick) == 24
    assert sum(job.cost for job in quick) < 10 < sum(job.cost for job in full) < 300
    assert {job.compute for job in quick} == {few_sequences}
