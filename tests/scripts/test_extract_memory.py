"""extract_memory.py: what it writes and prints, and one line for bad input."""

from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from odernn_commands.command_line import run as run_command

from analysis.memory import memory_function
from odernn.experiment import Experiment, ExperimentConfig
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "extract_memory.py"
MODULE = ("torch.nn.LSTM", "--layers", 2, "--hidden-size", 16, "--input-size", 2, "--horizon", 80)


def _run(*arguments, cwd):
    """As a user runs it: a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """The same within this process, which saves importing torch every time."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
        module = importlib.import_module("odernn_commands.extract_memory")
        code = 0
        try:
            run_command(module.PROGRAM, module.main)
        except SystemExit as exit:
            code = exit.code
        printed = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=printed.out, stderr=printed.err)

    return run


@pytest.fixture(scope="module")
def module_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("module")
    result = _run(*MODULE, cwd=directory)
    assert result.returncode == 0, result.stderr
    return directory, result


@pytest.mark.slow
def test_a_torch_module_gives_data_picture_and_law(module_run):
    directory, result = module_run
    out = directory / "memory-torch.nn.LSTM"
    assert sorted(path.name for path in out.iterdir()) == ["memory.csv", "memory.npz", "memory.png"]
    assert "law" in result.stdout
    assert "exponential, rate" in result.stdout
    with (out / "memory.csv").open() as file:
        rows = list(csv.DictReader(file))
    with np.load(out / "memory.npz") as data:
        arrays = {name: data[name] for name in data.files}
    assert len(rows) == 81
    np.testing.assert_array_equal([float(row["memory"]) for row in rows], arrays["values"])
    assert arrays["maximizer"].shape == (81, 2)
    assert arrays["amplitudes"].tolist() == [0.1, 1.0]
    assert rows[0]["amplitudes"] == "|x| = 0.1, 1"
    assert float(rows[5]["amplitude"]) == pytest.approx(np.abs(arrays["maximizer"][5]).max())
    assert "|x| = 0.1, 1" in result.stdout
    assert {"maximizer_0", "maximizer_1", "above_floor", "fitted_law_low"} <= set(rows[0])
    fit = json.loads(str(arrays["fit"]))
    assert fit["law"] == "exponential"
    assert float(rows[10]["fitted_law"]) == pytest.approx(fit["amplitude"] * np.exp(-10 * fit["rate"]))
    assert (out / "memory.png").stat().st_size > 10_000


@pytest.mark.slow
def test_nothing_is_replaced_without_being_told_and_the_same_command_gives_the_same_numbers(module_run, run_here):
    before = (module_run[0] / "memory-torch.nn.LSTM" / "memory.csv").read_bytes()
    assert run_here(*MODULE).returncode == 0
    assert Path("memory-torch.nn.LSTM/memory.csv").read_bytes() == before
    refused = run_here(*MODULE)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert run_here(*MODULE, "--overwrite").returncode == 0


def test_a_run_directory_is_compared_with_its_target(tmp_path, run_here):
    config = ExperimentConfig(
        model="ssm", hidden_size=4, horizon=10, points=21, train_size=4, validation_size=4, training=TrainingConfig(epochs=1)
    )
    run = RunDirectory.create(tmp_path / "run", {"experiment": config.to_dict()})
    Experiment(config).train(run, progress=False)
    result = run_here("run", "--points", 50, "--horizon", 20, "--probe", "impulse")
    assert result.returncode == 0, result.stderr
    assert "target" in result.stdout
    assert "power law, exponent 1.5" in result.stdout
    with (tmp_path / "run" / "memory" / "memory.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = np.array([float(row["time"]) for row in rows])
    np.testing.assert_allclose([float(row["target_memory"]) for row in rows], (1 + times) ** -1.5)
    assert times[-1] == 20


@pytest.mark.slow
def test_code_of_ones_own_is_found_by_file_and_by_module(tmp_path, run_here):
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\n"
        "import torch\n"
        "from targets import kernels\n"
        "def average(x):\n    return 0.5 ** torch.arange(x.shape[1]).to(x).unsqueeze(-1) * x\n"
        "def network():\n    return torch.nn.GRU(3, 4)\n"
        "rho = kernels.polynomial(1.1)\n"
    )
    by_file = run_here("own.py:average", "--horizon", 40, "--out", "a")
    assert by_file.returncode == 0, by_file.stderr
    by_module = run_here("own:network", "--horizon", 60, "--out", "b", "--dtype", "float32")
    assert by_module.returncode == 0, by_module.stderr
    assert "exponential" in by_module.stdout
    kernel = run_here("own:rho", "--out", "c")
    assert "power law, exponent 1.1" in kernel.stdout, kernel.stderr
    assert all(Path(name, "memory.png").exists() for name in "abc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["."], "."),
        (["torch.nn.Transformer"], "torch.nn.LSTM"),
        (["torch.nn.LSTM", "--layers", "0"], "--layers"),
        (["torch.nn.LSTM", "--probe", "dirac"], "--probe"),
        (["torch.nn.LSTM", "--amplitudes", "-1"], "amplitudes"),
        (["torch.nn.LSTM", "--amplitudes", "1", "--max-amplitude", "2"], "both came"),
        (["torch.nn.LSTM", "--horizon", "nan"], "--horizon"),
        (["torch.nn.LSTM", "--points", "1"], "--points"),
        (["missing.py:f"], "no file missing.py"),
        (["broken.py:f"], "SyntaxError"),
        (["acausal.py:f"], "not causal"),
        (["acausal.py:g"], "no attribute"),
        (["acausal.py:number"], "no memory function"),
        (["nowhere", "--hidden-size", "4"], "--hidden-size"),
        (["torch.nn.LSTM", "--out", "acausal.py"], "is a file"),
        ([], "system"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(arguments, message, tmp_path, run_here):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "acausal.py").write_text("def f(x):\n    return x.flip(1)\nnumber = 3\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = run_here(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == before


def test_weights_of_a_checkpoint_made_elsewhere(run_here, tmp_path):
    torch.manual_seed(1)
    lstm = torch.nn.LSTM(1, 4)
    torch.save({"state_dict": {f"module.{name}": value for name, value in lstm.state_dict().items()}}, tmp_path / "w.pt")
    (tmp_path / "mine.py").write_text("import torch\n\ndef make():\n    return torch.nn.LSTM(1, 4, batch_first=True)\n")
    for k, system in enumerate(("mine.py:make", "torch.nn.LSTM")):
        result = run_here(system, "--state", "w.pt", "--horizon", 10, "--out", f"out{k}")
        assert result.returncode == 0, result.stderr
        assert "begin with 'module.'" in result.stdout
    values = [np.load(tmp_path / f"out{k}" / "memory.npz")["values"] for k in range(2)]
    expected = memory_function(lstm.double(), torch.linspace(0, 10, 11, dtype=torch.float64)).values
    for one in values:
        assert np.allclose(one, expected.numpy(), rtol=1e-6)


def test_a_bare_file_is_told_what_it_needs(run_here, tmp_path):
    torch.save(torch.nn.GRU(1, 4).state_dict(), tmp_path / "gru.pt")
    torch.save(torch.nn.Linear(1, 4).state_dict(), tmp_path / "linear.pt")
    (tmp_path / "mine.py").write_text("")
    cases = {
        ("gru.pt",): "torch.nn.GRU --state gru.pt",
        ("linear.pt",): "weight (4, 1), bias (4,)",
        ("mine.py",): "mine.py:function",
        ("torch.nn.LSTM", "--state", "gru.pt"): "of torch.nn.GRU",
        ("torch.nn.LSTM", "--state", "none.pt"): "no file none.pt",
    }
    for arguments, message in cases.items():
        result = run_here(*arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
