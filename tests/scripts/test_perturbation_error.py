from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from analysis.linear.theory import kernel_derivative_distance, kernel_distance
from analysis.verdict import Verdict
from odernn.experiment import Experiment, ExperimentConfig, load_run
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "perturbation_error.py"
QUICK = ["--betas", "0", "0.01", "0.1", "--draws", "3", "--restarts", "0", "--steps", "2", "--sequences", "4"]
FILES = {"perturbation_error.csv", "perturbation_error.json", "perturbation_error.png"}


def script(*arguments, cwd):
    """As from a shell."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False, timeout=300)


@pytest.fixture
def main(call_main):
    """The same without a new interpreter: arguments -> (exit code, stdout, stderr)."""
    return partial(call_main, "perturbation_error")


def trained(directory, **settings):
    config = ExperimentConfig(
        **{
            "points": 11,
            "horizon": 5.0,
            "train_size": 4,
            "validation_size": 6,
            "kernel": "exponential",
            "activation": "linear",
            "recurrence": "diagonal",
            "training": TrainingConfig(epochs=3, iterations=5),
            **settings,
        }
    )
    Experiment(config).train(RunDirectory.create(directory, {"experiment": config.to_dict()}), progress=False)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    return {
        2: trained(base / "m2", hidden_size=2),
        4: trained(base / "m4", hidden_size=4),
        "other seed": trained(base / "m4-again", hidden_size=4, seed=1),
        "other target": trained(base / "polynomial", hidden_size=8, kernel="polynomial"),
    }


def require_one_line(answer, *words):
    code, out, error = answer
    assert code == 2
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("perturbation_error.py: error: ")
    for word in words:
        assert word in line


@pytest.mark.slow
def test_two_runs_give_curves_a_picture_and_a_verdict(runs, tmp_path):
    result = script(runs[4], runs[2], *QUICK, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "verdict: " in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    with open(tmp_path / "out" / "perturbation_error.csv") as file:
        rows = list(csv.DictReader(file))
    # Two runs, two choices of blocks, three betas.
    assert len(rows) == 12
    assert {(row["hidden_size"], row["blocks"]) for row in rows} == {
        ("2", "all"),
        ("2", "recurrent"),
        ("4", "all"),
        ("4", "recurrent"),
    }
    errors = [float(row["error"]) for row in rows if row["hidden_size"] == "2" and row["blocks"] == "all"]
    assert errors == sorted(errors)
    content = json.loads((tmp_path / "out" / "perturbation_error.json").read_text())
    assert content["verdict"]["widths"] == [2, 4]
    assert content["verdict"]["horizon"] == 5
    assert set(content["verdict"]["blocks"]) == {"all", "recurrent"}
    assert Verdict.from_dict(content["verdict"]).definition == content["verdict"]["blocks"]["all"]["judgement"]
    # A line for each block, that of the definition first.
    lines = result.stdout.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("verdict "))
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["all", "recurrent"]
    assert [curve["hidden_size"] for curve in content["curves"]["all"]] == [4, 2]
    assert content["curves"]["all"][0]["errors"] == [
        float(row["error"]) for row in rows if row["hidden_size"] == "4" and row["blocks"] == "all"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["linear", "tanh"])
def test_runs_on_the_default_horizon_are_undecided_and_say_how_long_it_must_be(activation, main, tmp_path):
    # e^-t on [0, 10]: ten time constants. Betas that end at 1.02 could not show stability there, whatever the models.
    settings = {"activation": activation, "recurrence": "symmetric", "parameterization": "softplus"}
    training = TrainingConfig(epochs=20, iterations=10)
    family = [
        trained(tmp_path / f"m{m}", hidden_size=m, horizon=10.0, points=51, train_size=8, training=training, **settings)
        for m in (2, 4)
    ]
    code, out, error = main(
        *family, "--draws", "2", "--restarts", "0", "--steps", "3", "--sequences", "4", "--out", tmp_path / "out"
    )
    assert code == 0, error
    assert "verdict: undecided (all), undecided (recurrent). " in out
    assert "horizon too short, take T >= 30\n" in out
    content = json.loads((tmp_path / "out" / "perturbation_error.json").read_text())
    assert content["verdict"]["needed_horizon"] == pytest.approx(30, rel=0.01)
    for curve in (curve for part in content["curves"].values() for curve in part):
        assert curve["betas"][1] * curve["horizon"] <= 0.1
        assert curve["betas"][-1] * curve["horizon"] >= 40
        assert curve["tolerance_radius_bound"] == ""


def test_radii_outside_the_betas_are_marked(runs, main, tmp_path):
    code, out, error = main(runs[2], "--betas", "0", "5", "10", *QUICK[4:], "--out", tmp_path)
    assert code == 0, error
    assert " <5 " in out
    code, out, error = main(runs[2], "--betas", "0", "1e-9", *QUICK[4:], "--out", tmp_path / "small")
    assert code == 0, error
    assert " >1e-09 " in out


def test_one_run_is_drawn_without_a_verdict_into_its_own_directory(runs, main):
    code, out, error = main(runs[2], *QUICK, "--blocks", "c", "--search", "sample", "--error", "time_weighted")
    assert code == 0, error
    assert "none (needs runs of at least two widths)" in out
    assert {path.name for path in runs[2].iterdir()} >= FILES
    content = json.loads((runs[2] / "perturbation_error.json").read_text())
    assert content["verdict"] is None
    (curve,) = content["curves"]["c"]
    assert curve["error"] == "time_weighted"
    assert curve["blocks"] == ["c"]


def test_the_same_command_gives_the_same_numbers(runs, main, tmp_path):
    texts = []
    for name in ("first", "second"):
        assert main(runs[2], *QUICK, "--out", tmp_path / name)[0] == 0
        texts.append((tmp_path / name / "perturbation_error.csv").read_text())
    assert texts[0] == texts[1]


def test_exact_linear_theory_is_an_error_of_the_script(runs, main, tmp_path):
    code, _, error = main(runs[2], runs[4], *QUICK, "--error", "kernel_l1", "--out", tmp_path)
    assert code == 0, error
    content = json.loads((tmp_path / "perturbation_error.json").read_text())
    assert content["curves"]["all"][0]["scale"] == pytest.approx(1 - math.exp(-5))
    for directory, model in zip((runs[2], runs[4]), content["models"]):
        loaded = load_run(directory)
        assert model["kernel_distance"] == kernel_distance(loaded.model, loaded.target, 5.0).value
        assert model["kernel_derivative_distance"] == kernel_derivative_distance(loaded.model, loaded.target, 5.0).value
        assert model["largest_weight"] == max(model["weight_norms"].values())
        assert model["weight_norms"]["c"] == pytest.approx(float(loaded.model.c.detach().norm()))


@pytest.mark.slow
def test_results_of_another_command_are_not_replaced_unasked(runs, main, tmp_path):
    out = tmp_path / "out"
    assert main(runs[2], *QUICK, "--out", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for other in ([runs[4], *QUICK], [runs[2], *QUICK, "--seed", "1"], [runs[2], *QUICK, "--blocks", "c"]):
        require_one_line(main(*other, "--out", out), "--overwrite", "perturbation_error.csv")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # The very same command, from elsewhere and with a slash, comes to the same.
    assert main(f"{runs[2]}/", *QUICK, "--out", out)[0] == 0
    assert (out / "perturbation_error.csv").read_bytes().replace(b"/,", b",") == before["perturbation_error.csv"]
    assert main(runs[4], *QUICK, "--out", out, "--overwrite")[0] == 0
    assert (out / "perturbation_error.csv").read_bytes() != before["perturbation_error.csv"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_users_own_file_is_not_replaced(runs, main, tmp_path, name):
    (tmp_path / name).write_text('{"settings": []}')
    require_one_line(main(runs[2], *QUICK, "--out", tmp_path), "--overwrite", name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_bad_input_is_one_line_with_code_2_and_nothing_is_written(runs, main, tmp_path):
    out = tmp_path / "out"
    for arguments, words in (
        ([tmp_path / "missing"], ("missing",)),
        ([tmp_path], ("not a run directory",)),
        ([runs[2], "--betas", "-0.1"], ("betas must be finite and >= 0",)),
        ([runs[2], "--betas", "0.1", "0.01"], ("betas must increase",)),
        ([runs[2], "--betas", "some"], ("invalid float",)),
        ([runs[2], "--blocks", "V"], ("unknown blocks 'V'",)),
        ([runs[2], "--draws", "-1"], ("draws",)),
        ([runs[2], "--sequences", "0"], ("--sequences",)),
        ([runs[2], "--search", "luck"], ("invalid choice",)),
        ([runs[2], runs["other target"]], ("another target", "polynomial")),
        ([runs[2], runs[4], runs["other seed"], *QUICK], ("two curves of width 4",)),
        ([], ("RUN_DIR",)),
    ):
        require_one_line(main(*arguments, "--out", out), *words)
        assert not out.exists()


def test_an_out_that_is_a_file_is_refused(runs, main, tmp_path):
    (tmp_path / "taken").write_text("")
    require_one_line(main(runs[2], *QUICK, "--out", tmp_path / "taken"), "is a file, expected a directory")


@pytest.mark.slow
def test_from_a_shell_bad_input_ends_without_a_traceback(tmp_path):
    result = script(tmp_path, "--out", "out", cwd=tmp_path)
    require_one_line((result.returncode, result.stdout, result.stderr), "not a run directory")
