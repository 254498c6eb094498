from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.linear_fits import ExponentialSum
from analysis.perturbation import PerturbationCurve, perturbation_error
from analysis.verdict import judge_stable_approximation, linear_curves, linear_table, linear_targets
from targets import kernels

BETAS = np.concatenate([[0.0], np.geomspace(1e-5, 10, 61)])
MODEL = ExponentialSum(np.array([1.0]), np.array([1.0])).model()
BASE = perturbation_error(MODEL, kernels.exponential(), None, None, [0.1], error="kernel_l1", horizon=1.0, draws=0, restarts=0)


def curve(m, radius, horizon=1000.0, initial=0.01, block="recurrent", **changes) -> PerturbationCurve:
    """E(beta) / |H| = max(initial, beta / (2 radius)): the tolerance radius is `radius`."""
    relative = np.maximum(initial, BETAS / (2 * radius))
    values = {"betas": BETAS, "errors": relative, "searched": relative, "initial": initial, "scale": 1.0, "hidden_size": m}
    return replace(BASE, **values, horizon=horizon, block_choice=block, **changes)


def family(radii, initial=(0.08, 0.02, 0.005), block="recurrent", **changes):
    return [curve(m, r, initial=e, block=block, **changes) for m, r, e in zip((2, 4, 8), radii, initial)]


def judgement(*curves):
    return judge_stable_approximation([one for part in curves for one in (part if isinstance(part, list) else [part])]).judgement


# --- the rule ---


def test_one_horizon_is_judged_by_r_times_t_on_both_choices_of_blocks():
    high, low = family((0.05, 0.05, 0.05)), family((0.003, 0.002, 0.002))
    assert judgement(high) == "stable"
    assert judgement(low) == "unstable"
    assert judgement(high, family((0.04, 0.03, 0.02), block="all")) == "stable"
    assert judgement(low, family((0.002, 0.001, 0.001), block="all")) == "unstable"
    assert judgement(high, family((0.002, 0.002, 0.002), block="all")) == "undecided"


def test_a_second_horizon_overrules_the_cut():
    # Exponential with a time scale of the order of the horizon: kappa is low, but r stays.
    short = family((0.005, 0.005, 0.005))
    assert judgement(short) == "unstable"
    assert judgement(short, curve(8, 0.005, horizon=4000.0)) == "stable"
    # A power law: r falls like 1/T.
    assert judgement(short, curve(8, 0.005 / 4, horizon=4000.0)) == "unstable"
    assert judgement(family((0.05, 0.05, 0.05)), curve(8, 0.0125, horizon=4000.0)) == "undecided"


def test_a_radius_that_still_falls_as_the_fit_improves_is_no_stability():
    falling = family((0.06, 0.045, 0.039))
    second = curve(8, 0.039, horizon=4000.0)
    assert judgement(falling, second) == "undecided"
    assert judge_stable_approximation([*falling, second]).still_falling
    # It may fall with the number of weights alone.
    assert judgement(family((0.06, 0.045, 0.039), initial=(0.01, 0.009, 0.009)), second) == "stable"
    assert judgement(family((0.06, 0.065, 0.039)), second) == "stable"
    assert judgement(family((0.06, 0.055, 0.05)), curve(8, 0.05, horizon=4000.0)) == "stable"


def test_a_poor_fit_is_not_judged():
    assert judgement(family((0.05, 0.05, 0.05), initial=(0.4, 0.3, 0.2))) == "not approximated"
    good = family((0.05, 0.05, 0.05))
    assert judgement(good, curve(8, 0.05, horizon=4000.0, initial=0.2)) == "not approximated"


def test_sampled_curves_can_show_instability_only():
    assert judgement(family((0.05, 0.05, 0.05), search="sample")) == "undecided"
    assert judgement(family((0.002, 0.002, 0.002), search="sample")) == "unstable"


def test_betas_that_end_too_early_leave_the_question_open():
    short = [replace(one, betas=one.betas[:10], errors=one.errors[:10], searched=one.searched[:10]) for one in family((1, 1, 1))]
    verdict = judge_stable_approximation(short)
    assert verdict.judgement == "undecided"
    assert "larger betas" in str(verdict)


def test_the_verdict_carries_the_numbers_it_rests_on():
    curves = [*family((0.06, 0.05, 0.04)), *family((0.03, 0.02, 0.01), block="all"), curve(8, 0.04, horizon=4000.0)]
    verdict = judge_stable_approximation(curves[::-1])  # in any order
    assert verdict.widths == (2, 4, 8)
    assert verdict.horizon == 1000
    assert verdict.initial_errors == (0.08, 0.02, 0.005)
    assert verdict.improves
    np.testing.assert_allclose(verdict.radii["recurrent"], (0.06, 0.05, 0.04))
    assert verdict.kappa["all"] == pytest.approx(10)
    assert verdict.longer_horizon == 4000
    assert verdict.horizon_exponent == pytest.approx(0, abs=1e-9)
    # E of m = 4 starts below that of m = 2 and overtakes it where beta / (2 0.05) = 0.08.
    assert verdict.crossings["recurrent"][0] == pytest.approx(0.008, rel=0.1)
    json.dumps(verdict.as_dict())
    stable = judge_stable_approximation(family((0.05, 0.06, 0.05)))
    assert stable.beta0 == pytest.approx(0.05)
    assert "stable up to beta0 = 0.05" in str(stable)
    assert judge_stable_approximation(family((0.002, 0.002, 0.002))).beta0 is None


def test_bad_sets_of_curves_are_refused_in_one_line():
    for curves, message in (
        ([], "no curves"),
        ([curve(4, 0.1)], "at least two widths"),
        ([curve(4, 0.1), curve(4, 0.1, block="all")], "at least two widths"),
        ([curve(4, 0.1), curve(8, 0.1), curve(8, 0.2)], "two curves of width 8"),
        ([curve(4, 0.1), curve(8, 0.1, error="mse")], "share their error"),
        ([curve(4, 0.1, horizon=math.inf), curve(8, 0.1, horizon=math.inf)], "finite horizon"),
        ([curve(4, 0.1, block="named", blocks=("c",)), curve(8, 0.1, block="named", blocks=("b",))], "one choice"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            judge_stable_approximation(curves)
        assert "\n" not in str(caught.value)


# --- against the theory ---


def test_the_linear_table_is_right_within_two_minutes():
    started = time.perf_counter()
    table = linear_table()
    assert time.perf_counter() - started < 120
    assert len(table) == 28
    power_laws = {"(1+t)^-1.1", "(1+t)^-1.5", "(1+0.1t)^-1.1"}
    for (target, parameterization), verdict in table.items():
        if parameterization != "direct" or target not in (*power_laws, "e^-sqrt t"):
            expected = {"stable"}
        else:
            # Memory slower than exponential; of the stretched exponential the widths up to 12 do not say enough.
            expected = {"unstable"} if target in power_laws else {"unstable", "undecided"}
        assert verdict.judgement in expected, (target, parameterization, str(verdict))
        assert verdict.improves or verdict.initial_errors[-1] < 1e-3


# None of these was used to choose the cuts; the report of all nineteen stands in the rule's docstring.
UNSEEN = {
    "0.95^t": (kernels.exponential(base=0.95), "stable"),
    "(1+t)^-0.9": (kernels.polynomial(0.9), "unstable"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_targets_that_were_not_used_to_choose_the_cuts_are_judged_right_over_five_seeds(name):
    kernel, direct = UNSEEN[name]
    for seed in range(1, 6):
        assert judge_stable_approximation(linear_curves(kernel, "direct", widths=(2, 4, 8), seed=seed)).judgement == direct
    assert judge_stable_approximation(linear_curves(kernel, "softplus", seed=1)).judgement == "stable"


def test_the_second_horizon_saves_the_verdict_of_a_short_first_one():
    # 0.9^t on [0, 100] has kappa 3.5 and reads unstable.
    curves = linear_curves(linear_targets()["0.9^t"], "direct", horizon=100.0)
    assert judge_stable_approximation([one for one in curves if one.horizon == 100]).judgement == "unstable"
    assert judge_stable_approximation(curves).judgement == "stable"


def test_the_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float32)
    assert linear_curves(kernels.exponential(), "direct", widths=(1, 2))[0].worst_case.c.dtype == torch.float64
