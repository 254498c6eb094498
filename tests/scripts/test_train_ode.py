from __future__ import annotations

import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "train_ode.py"
SMALL = shlex.split(
    "--hidden-size 4 --points 11 --horizon 2 --train-size 4 --validation-size 4 --epochs 2 --iterations 2 --solver rk4"
)


def train(*arguments, cwd, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, check=False, **options)
    # on a busy machine a script says that it is at work, on a new one that it compiles
    said = (": at work for ", "compiling kernels for ", "compiled ")
    ended.stderr = "".join(line for line in ended.stderr.splitlines(keepends=True) if not any(words in line for words in said))
    return ended


@pytest.mark.slow
def test_a_run_trains_prints_its_table_and_leaves_its_files(tmp_path):
    result = train("--activation", "tanh", *SMALL, "--out", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for row in ("validation relative L2 error", "stability margin", "slowest rate", "vector-field evaluations", "seconds"):
        assert row in result.stdout
    names = {"config.json", "metrics.csv", "checkpoint.pt", "best.pt", "summary.json", "training.png", "memory.png"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    assert result.stderr == ""  # silent where it is not a terminal


@pytest.mark.slow
def test_a_user_supplied_kernel_trains_like_a_named_one_and_resumes_from_elsewhere(tmp_path):
    (tmp_path / "mine.py").write_text("import numpy as np\ndef rho(t):\n    return np.cos(t) * np.exp(-0.3 * t)\n")
    result = train(*SMALL, "--kernel", "mine.py:rho", "--out", "run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    refused = train("--resume", tmp_path / "run", "--epochs", 4, cwd=ROOT)
    assert refused.returncode == 2
    assert "mine.py:rho" in refused.stderr
    assert "--trust-code" in refused.stderr
    result = train("--resume", tmp_path / "run", "--epochs", 4, "--trust-code", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 4


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path):
    settings = [*SMALL, "--epochs", "60", "--train-size", "64"]
    command = [sys.executable, str(SCRIPT), *settings, "--out", "run"]
    # The same number of threads as in `train`: sums over another number of threads round differently.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, stderr=pipe, stdout=pipe, text=True, env=environment)
    metrics = tmp_path / "run" / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume run" in stderr
    assert "Traceback" not in stderr
    assert train("--resume", "run", cwd=tmp_path).returncode == 0
    assert train(*settings, "--out", "straight", cwd=tmp_path).returncode == 0
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in ("run", "straight")]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


BAD = {
    "unknown activation": (["--activation", "swish"], "linear"),
    "no hidden units": (["--hidden-size", "0"], "--hidden-size is 0, expected an integer of at least 1"),
    "negative epochs": (["--epochs", "-1"], "--epochs is -1, expected an integer of at least 0"),
    "not a number": (["--lr", "fast"], "invalid float value"),
    "unknown kernel": (["--kernel", "cubic"], "polynomial"),
    "kernel not integrable near 0": (["--kernel", "bad.py:inverse"], "cannot be integrated"),
    "kernel with NaN": (["--kernel", "bad.py:nan"], "nan"),
    "unwritable out": (["--out", "bad.py/run"], "choose another --out"),
    "out that is not a run": (["--out", "."], "not a run directory"),
    "resume of nothing": (["--resume", "nowhere"], "no run directory"),
    "resume of a foreign directory": (["--resume", "."], "not a run directory"),
    "resume with other settings": (["--resume", ".", "--lr", "1"], ""),
    "meaningless combination": (["--parameterization", "exp"], "takes only the parameterization"),
    "exact solver for a nonlinear model": (["--solver", "exact"], "solver 'exact' needs"),
    "warm start from nothing": (["--warm-start", "nowhere"], "no run directory"),
    "tau of a nonlinear state": (["--regularizer", "tau"], "take model 'ssm' or activation 'linear'"),
    "rescaled readout of a nonlinear state": (["--rescale-readout"], "take model 'ssm' or activation 'linear'"),
    "tau beside lm": (["--regularizer", "tau", "--optimizer", "lm"], "choose lbfgs, adam or adamw"),
    "weight of nothing": (["--regularizer-weight", "0.1"], "no effect without a regularizer"),
    "abbreviated flag": (["--activ", "tanh"], "unrecognized arguments"),
}
if not torch.cuda.is_available():
    BAD["no such device"] = (["--device", "cuda"], "--device cpu")


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2_with_nothing_written(name, tmp_path, monkeypatch, capsys):
    arguments, message = BAD[name]
    (tmp_path / "bad.py").write_text("def inverse(t):\n    return 1 / t\ndef nan(t):\n    return t * float('nan')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_ode.py", *arguments])
    monkeypatch.syspath_prepend(SCRIPT.parent)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    stderr = capsys.readouterr().err
    assert stop.value.code == 2
    assert stderr.startswith("train_ode.py: error: ")
    assert len(stderr.strip().splitlines()) == 1
    assert message.lower() in stderr.lower()
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["bad.py"]


@pytest.mark.slow
def test_an_existing_run_is_not_overwritten_unasked(tmp_path):
    assert train(*SMALL, "--out", "run", cwd=tmp_path).returncode == 0
    before = (tmp_path / "run" / "best.pt").read_bytes()
    result = train(*SMALL, "--seed", "1", "--out", "run", cwd=tmp_path)
    assert result.returncode == 2
    assert "--overwrite" in result.stderr
    assert (tmp_path / "run" / "best.pt").read_bytes() == before
    assert train(*SMALL, "--seed", "1", "--out", "run", "--overwrite", cwd=tmp_path).returncode == 0
    assert (tmp_path / "run" / "best.pt").read_bytes() != before


@pytest.mark.slow
def test_a_diverging_run_ends_with_one_line_and_keeps_its_checkpoint(tmp_path):
    # Steps of 200 time units are far outside the region of stability of rk4 for rates of 0.3 to 2.
    arguments = shlex.split("--activation linear --horizon 8000 --points 41")
    result = train(*SMALL, *arguments, "--out", "run", cwd=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "kept" in result.stderr
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]["c"].isfinite().all()


@pytest.mark.slow
def test_a_diverging_run_does_not_replace_an_old_one(tmp_path):
    assert train(*SMALL, "--out", "run", cwd=tmp_path).returncode == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    arguments = shlex.split("--activation linear --horizon 8000 --points 41")
    result = train(*SMALL, *arguments, "--out", "run", "--overwrite", cwd=tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


@pytest.mark.slow
def test_results_of_an_overwritten_run_are_named_as_not_of_the_new_one(tmp_path):
    assert train(*SMALL, "--out", "run", cwd=tmp_path).returncode == 0
    (tmp_path / "run" / "memory").mkdir()
    result = train(*SMALL, "--seed", "1", "--out", "run", "--overwrite", cwd=tmp_path)
    assert "run also holds what is not of this run: memory" in result.stdout
    wrote = next(line for line in result.stdout.splitlines() if line.startswith("wrote"))
    assert wrote == "wrote best.pt, checkpoint.pt, config.json, memory.png, metrics.csv, summary.json, training.png to run"


@pytest.mark.slow
def test_help_explains_every_flag_with_its_default(tmp_path):
    result = train("--help", cwd=tmp_path)
    assert result.returncode == 0
    names = "model hidden-size recurrence parameterization activation kernel solver adjoint no-adjoint epochs batch-size lr"
    for flag in shlex.split(names + " seed device dtype out resume"):
        assert f"--{flag}" in result.stdout
    assert "(default: dense)" in result.stdout


def test_data_of_a_file_go_through_all_three_scripts(tmp_path, call_main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{name},{0.1 * k},{(-1) ** (k // slow)},{k % 5 or ''}" for name, slow in (("a", 2), ("b", 3), ("c", 4)) for k in range(9)
    ]
    Path("data.csv").write_text("sequence,t,x,y\n" + "\n".join(rows))
    code, out, error = call_main("train_ode", "--data", "data.csv", "--epochs", 1, "--hidden-size", 2, "--out", "run")
    assert code == 0, error
    assert str(tmp_path / "data.csv") in out
    assert Path("run/memory.png").is_file()
    code, out, error = call_main("extract_memory", "run")
    assert code == 0, error
    code, out, error = call_main("perturbation_error", "run", "--betas", 0, 0.1, "--draws", 1, "--restarts", 0, "--steps", 1)
    assert code == 0, error
    Path("data.csv").write_text("sequence,t,x,y\n" + "\n".join(rows[:-1]))
    code, _, error = call_main("train_ode", "--resume", "run", "--epochs", 2)
    assert code == 2
    assert "is not the file that the run was trained on" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "none.csv"], "none.csv: there is no such file"),
        (["--data", "none.csv", "--kernel", "sine", "--points", "5"], "got --kernel, --points as well"),
        (["--validation-fraction", "0.3"], "--validation-fraction is for --data"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(tmp_path, call_main, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = call_main("train_ode", *arguments)
    assert code == 2, error
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
