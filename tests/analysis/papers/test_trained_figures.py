"""Figures of trained families, on families too small to claim anything: that numbers find their way into claims and pictures."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch

from analysis.papers.compute import linear_families
from analysis.papers.compute.teachers import SLOPE, TEACHERS
from analysis.papers.compute.trained_families import load_target, trained_curves
from analysis.papers.engine.figure import Options
from analysis.papers.inverse_approximation.fig_2 import IA_2
from analysis.papers.inverse_approximation.fig_3 import IA_3
from analysis.papers.inverse_approximation.fig_7 import IA_7A
from analysis.papers.inverse_approximation.fig_8 import IA_8B
from analysis.papers.inverse_approximation.fig_12 import IA_12, published_curves
from analysis.papers.inverse_approximation.readme_table import README_TABLE
from analysis.papers.stable_ssm.fig_1 import STABLE_SSM_1
from targets import kernels

SMALL = {"horizon": 30.0, "points": 31, "scales": [2.0, 5.0, 20.0], "widths": [2, 4], "sequences": 4, "steps": 10, "starts": 1}
ASCENT = {"betas": [0.0, 0.01, 0.1], "draws": 2, "restarts": 0, "steps": 1}
T = torch.arange(12.0, dtype=torch.float64)


@cache
def result(target: str, family: str, blocks: str, sampled: bool) -> str:
    draws = {"betas": [0.0, 0.1], "draws": 2} if sampled else None
    family = {**json.loads(family), **SMALL}
    return json.dumps(trained_curves(json.loads(target), family, [2, 4], {**ASCENT, "blocks": json.loads(blocks)}, draws))


def computed(job):
    """The job's result at SMALL settings, computed once for equal families."""
    if job.compute is not trained_curves:
        return json.loads(
            json.dumps(
                {name: getattr(value, "tolist", lambda v=value: v)() for name, value in job.compute(**job.settings).items()}
            )
        )
    names = ("model", "activation", "recurrence", "parameterization", "bias")
    family = {name: value for name, value in job.settings["family"].items() if name in names}
    blocks = job.settings["ascent"].get("blocks", ["recurrent", "all"])
    sampled = job.settings.get("sampled") is not None
    return json.loads(result(*map(json.dumps, (job.settings["target"], family, blocks)), sampled))


@pytest.mark.slow
# Models trained for a few steps only may end with rates that two steps a sample do not resolve.
@pytest.mark.filterwarnings("ignore::odernn.InaccurateSolve")
@pytest.mark.parametrize(
    ("figure", "quick", "claims"),
    [(IA_2, True, 4), (IA_3, True, 4), (IA_7A, True, 6), (IA_8B, False, 6), (IA_12, True, 7), (STABLE_SSM_1, True, 9)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_claims_and_picture_come_from_the_data(tmp_path, figure, quick, claims):
    data = figure.assemble([(job, computed(job)) for job in figure.jobs(Options(quick=quick))])
    found = figure.claims(data)
    assert len(found) == claims
    assert all(claim.evidence for claim in found)
    figure.plot(data, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert {"seed", "beta", "error"} <= figure.rows(data)[0].keys()
    json.dumps(data)


@pytest.mark.slow
def test_the_table_has_a_line_for_every_row_and_activation(tmp_path):
    data = README_TABLE.assemble([(job, computed(job)) for job in README_TABLE.jobs(Options(quick=True))])
    lines = README_TABLE.table(data).splitlines()
    assert len(lines) == 2 + 9
    assert all(line.count("|") == 8 for line in lines)
    assert len(README_TABLE.claims(data)) == 9 * 2 * 2
    assert "frequencies" in README_TABLE.findings(data)
    README_TABLE.plot(data, tmp_path / "picture.png")


def test_full_runs_have_three_seeds_of_every_family():
    jobs = README_TABLE.jobs(Options())
    assert len({job.key for job in jobs}) == len(jobs) == 3 * 2 * 18
    assert all(job.settings["longer"] for job in jobs)


@pytest.mark.parametrize("teacher", sorted(TEACHERS))
def test_teachers_are_causal_functionals_that_answer_0_to_0(teacher):
    H, again, other = (load_target(teacher=teacher, seed=seed) for seed in (0, 0, 1))
    x = torch.randn(2, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(H(x, T), again(x, T))
    assert not torch.allclose(H(x, T), other(x, T))
    assert H(torch.zeros_like(x), T).abs().max() == 0
    later = x.clone()
    later[:, 7:] += 1
    assert torch.allclose(H(later, T)[:, :7], H(x, T)[:, :7], atol=1e-12)


@pytest.mark.parametrize("teacher", ["exponential-transformer", "power-transformer", "windowed-transformer"])
def test_attention_that_weighs_the_lag_does_not_know_the_time(teacher):
    """What comes after zeros is answered as if it came at once; the published attention averages over the zeros, too."""
    x = torch.randn(2, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    later, t = torch.nn.functional.pad(x, (0, 0, 30, 0)), torch.arange(42.0, dtype=torch.float64)
    H, published = load_target(teacher=teacher, seed=1), load_target(teacher="transformer", seed=1)
    torch.testing.assert_close(H(later, t)[:, 30:], H(x, T), rtol=0, atol=1e-10)
    assert (published(later, t)[:, 30:] - published(x, T)).abs().max() > 1e-2
    torch.testing.assert_close(H(-x, T), -H(x, T), rtol=0, atol=1e-10)
    # The first sample has no past.
    assert H(x, T)[:, 0].abs().max() < 1e-10


def test_attention_of_exponential_weights_forgets_at_their_rate():
    """For small inputs H is the convolution with b(k) = e^{-s k}, in units of its sum, less b(0)."""
    impulse = torch.zeros(1, 40, 1, dtype=torch.float64)
    impulse[:, 0] = 1e-5
    found = load_target(teacher="exponential-transformer", seed=0)(impulse, torch.arange(40.0, dtype=torch.float64))[0, 1:, 0]
    expected = torch.exp(-SLOPE * torch.arange(39.0, dtype=torch.float64))
    torch.testing.assert_close(found / found[0], expected, rtol=1e-2, atol=1e-4)


def test_bad_targets_are_named():
    with pytest.raises(ValueError, match="unknown teacher 'lstm', expected one of rnn, slow-rnn"):
        load_target(teacher="lstm")
    with pytest.raises(ValueError, match="a kernel or a teacher"):
        load_target()


def test_stages_of_training_are_not_measured():
    family = {**SMALL, "activation": "linear", "recurrence": "diagonal"}
    found = trained_curves({"kernel": "exponential"}, family, [4], ASCENT, {"betas": [0.0, 0.1], "draws": 2})
    assert [curve["hidden_size"] for curve in found["curves"]] == [4, 4]
    assert [curve["hidden_size"] for curve in found["sampled"]] == [4]
    with pytest.raises(ValueError, match="the family has no width 3: choose among 2, 4"):
        trained_curves({"kernel": "exponential"}, family, [3, 4], ASCENT)


def test_the_widest_model_is_trained_and_measured_on_the_longer_horizon_too():
    family = {**SMALL, "activation": "linear", "recurrence": "diagonal"}
    found = trained_curves({"kernel": "exponential"}, family, [2, 4], ASCENT, {"betas": [0.0, 0.1], "draws": 2}, longer=True)
    seen = {(curve["hidden_size"], curve["horizon"], curve["block_choice"]) for curve in found["curves"]}
    assert seen == {(m, T, block) for m, T in ((2, 30), (4, 30), (4, 120)) for block in ("recurrent", "all")}
    assert {curve["horizon"] for curve in found["sampled"]} == {30}


@pytest.mark.parametrize(("perturbed", "unit_input"), [("w", False), ("U", False), ("c", False), ("wc", True), ("c", True)])
def test_other_readings_of_the_linear_protocol_perturb_what_they_say(perturbed, unit_input):
    rho, beta, ridge, t = kernels.polynomial(1.1), 1e-7, 1e-5, np.arange(1.0, 101.0)
    values, rates = rho.values(t)[:, 0], linear_families.equispaced_rates(2)
    (curve,) = linear_families.published_curves(
        "polynomial:exponent=1.1",
        "direct",
        [2],
        [0.0, beta],
        ridge=ridge,
        draws=400,
        seed=0,
        perturbed=perturbed,
        unit_input=unit_input,
    )["curves"]
    # To first order noise of max-norm beta adds at most beta times the sum of |d rho_hat / d weight|, and 400 draws come close.
    a = linear_families.fit_amplitudes(rho, rates, t, ridge * (values**2).sum()).amplitudes
    modes = np.exp(-np.outer(t, rates))
    worst = np.abs(values - modes @ a).argmax()
    other = np.ones(2) if unit_input else np.sqrt(np.abs(a))
    slopes = {"w": np.abs(a) * t[worst], "U": other, "c": other}
    expected = sum(modes[worst] @ slopes[name] for name in perturbed)
    assert (curve["errors"][1] - curve["errors"][0]) / beta == pytest.approx(expected, rel=0.1)
    assert len(curve["blocks"]) == len(perturbed)


def test_the_published_curves_come_with_the_package():
    curves = published_curves()
    assert list(curves) == [8, 16, 32, 64]
    for betas, errors in curves.values():
        assert betas[0] == 0
        assert len(betas) == len(errors) == 22
        assert errors == sorted(errors)
