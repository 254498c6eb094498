"""All figures: that they are found, stand apart from each other, and make claims that can fail."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import analysis.papers
from analysis.papers import PAPERS, compute, figures
from analysis.papers.engine.figure import Figure
from analysis.papers.inverse_approximation import fig_2
from odernn import json_values

ROOT = Path(analysis.papers.__file__).parent
REPRODUCTION = Path(__file__).parents[3] / "reproduction"
MODULES = [path for paper in PAPERS for path in sorted((ROOT / paper).glob("*.py")) if path.stem != "__init__"]


def committed(name):
    return json_values.loads((REPRODUCTION / name / "data.json").read_bytes())


def outcomes(name, data):
    return {claim.statement: claim.outcome for claim in figures()[name].claims(data)}


def outcome(name, data, part):
    (found,) = [outcome for statement, outcome in outcomes(name, data).items() if part in statement]
    return found


# --- the tree -------------------------------------------------------------------------------------------------------------------


def test_figures_are_found_in_the_order_of_papers_and_numbers():
    names = list(figures())
    assert names[:4] == ["ia-1a", "ia-1b", "ia-2", "ia-3"]
    assert names.index("ia-9") < names.index("ia-10") < names.index("readme-table") < names.index("ssm-depth")
    order = ["ssm-depth", "stable-ssm-1", "esp-background", "vanishing-gradients", "com-plateau", "post-initial", "hankel-floor"]
    assert [name for name in names if name in order] == order
    assert set(names) == {path.parent.name for path in REPRODUCTION.glob("*/record.json")}


def test_two_figures_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(fig_2, "AGAIN", replace(fig_2.IA_2, title="Another"), raising=False)
    with pytest.raises(ValueError, match="has a figure ia-2, and so has another"):
        figures.__wrapped__()


def test_every_module_of_a_paper_has_a_figure_and_imports_none():
    for path in MODULES:
        module = import_module(f"analysis.papers.{path.parent.name}.{path.stem}")
        assert any(isinstance(value, Figure) for value in vars(module).values()), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                # From beside it, or from another paper.
                assert node.level != 1, f"{path} imports {node.module}"
                assert (node.module or "").partition(".")[0] not in PAPERS, f"{path} imports {node.module}"


def test_no_two_functions_have_one_name_as_jobs():
    named = {}
    for module in iter_modules(compute.__path__):
        for function in vars(import_module(f"{compute.__name__}.{module.name}")).values():
            if hasattr(function, "__job_name__"):
                named.setdefault(function.__job_name__, set()).add(function)
    assert len(named) >= 20
    assert all(len(functions) == 1 for functions in named.values()), named


# --- claims that can fail -------------------------------------------------------------------------------------------------------


def calls_of(name, tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name]


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted((ROOT / "panels").glob("*.py"))], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_no_claim_holds_or_is_excused_whatever_the_data(path):
    """The condition and the excuse are computed: neither is a text or a constant."""
    for call in calls_of("Claim", ast.parse(path.read_text())):
        given = dict(zip(("statement", "held", "evidence", "difference"), call.args)) | {
            one.arg: one.value for one in call.keywords
        }
        assert not isinstance(given["held"], ast.Constant), ast.unparse(call)
        assert not isinstance(given.get("difference"), (ast.Constant, ast.JoinedStr, ast.BinOp)), ast.unparse(call)


def test_the_corners_of_the_phase_plane_must_be_saddles_for_their_claim_to_be_excused():
    part = "(1, 1) and (-1, -1) attract"
    data = committed("ia-11b")
    assert outcome("ia-11b", data, part) == "differs"
    corners = [point for point in data["equilibria"]["points"] if point["v"][0] == point["v"][1] != 0]
    assert len(corners) == 2
    eigenvalues = [point["eigenvalues"] for point in corners]
    for point in corners:
        point |= {"stability": "unstable", "eigenvalues": [14.0, 4.0]}
    assert outcome("ia-11b", data, part) == "failed"
    for point, own in zip(corners, eigenvalues):
        point["eigenvalues"] = own
    # What rounding puts on the edge must stay there.
    data["leaving_the_edge"]["v"]["left"] = 5.0
    assert outcome("ia-11b", data, part) == "failed"
    for point in corners:
        point |= {"stability": "stable", "eigenvalues": [-1.0, -4.0]}
    assert outcome("ia-11b", data, part) == "held"


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.5 + 0.4 * 0.5**n for n in range(17)], "held"),
        ([0.5 + 0.01 * 1.1**n for n in range(17)], "failed"),
        ([0.5 + 0.01 * 1.1**n for n in range(9)], "differs"),
        ([0.5] * 17, "differs"),
    ],
)
def test_a_classifier_whose_memory_grows_fails_its_claim(scores, expected):
    data = {"models": [{"name": "mine", "label": "POSITIVE", "scores": {"ha": scores}}]}
    assert outcome("ia-5", data, "the memory decays") == expected


def ends_of(data, part, **which):
    return [run for run in data[part] if all(run[name] == value for name, value in which.items())]


def test_learning_rates_must_not_part_with_w_slow_for_the_order_of_losses_to_be_excused():
    part = "digits: at 0.05 and 0.5 the inverse parameterisation has the lowest mean test loss"
    data = committed("stable-ssm-lr")
    (digits, *_) = data["sets"]
    assert outcome("stable-ssm-lr", data, part) == "differs"
    for run in ends_of(digits, "slow_w", parameterization="exp"):
        run["test_loss"][-1] *= 0.7
    assert outcome("stable-ssm-lr", data, part) == "failed"
    for rate in (0.05, 0.5):
        for run in ends_of(digits, "runs", parameterization="inverse", learning_rate=rate):
            run["test_loss"][-1] = 1.0
    assert outcome("stable-ssm-lr", data, part) == "held"


def test_direct_must_diverge_at_a_small_rate_when_it_has_all_steps():
    data = committed("stable-ssm-lr")
    assert outcome("stable-ssm-lr", data, "digits: direct diverges at 0.005 already") == "held"
    for run in data["sets"][0]["long"]:
        run["test_loss"] = [1.5] * len(run["test_loss"])
    assert outcome("stable-ssm-lr", data, "digits: direct diverges at 0.005 already") == "failed"


@pytest.mark.parametrize("change", [{"margin": -0.1}, {"test_loss": [math.nan]}])
def test_stable_eigenvalues_must_have_been_borne_for_exp_and_softplus_not_to_diverge(change):
    part = "digits: exp and softplus diverge at 5"
    data = committed("stable-ssm-lr")
    assert outcome("stable-ssm-lr", data, part) == "differs"
    ends_of(data["sets"][0], "runs", parameterization="exp", learning_rate=5.0)[0].update(change)
    assert outcome("stable-ssm-lr", data, part) == "failed"


def test_euler_steps_must_part_the_parameterisations_for_the_exact_solve_to_be_the_reason():
    part = "digits: exp and softplus diverge at 5"
    data = committed("stable-ssm-lr")
    ends_of(data["sets"][0], "euler", parameterization="exp")[0]["test_loss"][-1] = 1.0
    assert outcome("stable-ssm-lr", data, part) == "failed"


def test_a_slow_w_must_make_up_the_deficit_of_direct_for_its_learning_rate_to_be_the_reason():
    further, cause = "digits: direct falls behind no further than published", "digits: that is the learning rate of w"
    data = committed("ia-9")
    assert outcome("ia-9", data, further) == "differs"
    assert outcome("ia-9", data, cause) == "held"
    for run in data["sets"][0]["slow_w"]:
        run["test_accuracy"][-1] -= 0.1
    assert outcome("ia-9", data, further) == "failed"
    assert outcome("ia-9", data, cause) == "failed"


def test_the_order_of_the_images_may_turn_only_where_no_slow_modes_are_lost():
    part = "digits: the order is the same at learning rate 0.005, T = 64"
    data = committed("ia-9")
    assert outcome("ia-9", data, part) == "differs"
    for run in ends_of(data["sets"][0], "runs", parameterization="direct", steps_per_pixel=1):
        run["margin"] = 0.2
    assert outcome("ia-9", data, part) == "failed"


def test_claims_of_stability_fail_on_data_of_the_other_kind():
    """The linear families, the one that must be stable with the curves of the one that must not, and the other way round."""
    stable, unstable = committed("ia-4a"), committed("ia-1b")
    assert outcome("ia-4a", stable, "is stable") == "held"
    assert outcome("ia-4a", {**stable, "ours": unstable["ours"]}, "is stable") == "failed"
    assert outcome("ia-1b", {**unstable, "ours": stable["ours"]}, "is unstable") == "failed"
