"""Every way that a script fails is one line and an exit code, and no reader or Ctrl-C brings a traceback."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from odernn.runs import replace_file

ROOT = Path(__file__).parents[2]
SCRIPTS = ("train_ode", "extract_memory", "perturbation_error", "reproduce_figures", "benchmark")
# Scripts of their own that use the module as ours do.
PROGRAM = """
import sys
sys.path.insert(0, {scripts!r})
from odernn_commands import command_line
{body}
command_line.run("toy.py", main)
"""


def toy(body, environment=None):
    """A script with this body, run as from a shell."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "toy.py"
        script.write_text(PROGRAM.format(scripts=str(ROOT / "scripts"), body=body))
        command = [sys.executable, str(script)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def shell(line, cwd):
    """A line of bash; `code` is that of its first command."""
    environment = os.environ | {"PYTHON": sys.executable, "S": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def require_line(result, code, *words):
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert ": error: " in line
    for word in words:
        assert word in line


# --- values ---


@pytest.mark.parametrize(
    ("script", "line", "words"),
    [
        ("train_ode", "--seed 9223372036854775808", ("--seed", "64 bits")),
        ("train_ode", "--seed -9999999999999999999999", ("--seed", "64 bits")),
        ("train_ode", "--points nan", ("--points",)),
        ("train_ode", "--lr inf", ("--lr", "finite")),
        ("train_ode", "--horizon nan", ("--horizon", "finite")),
        ("train_ode", "--out ''", ("--out", "empty")),
        ("train_ode", "--kernel ''", ("--kernel", "empty")),
        ("train_ode", "--adjoint --no-adjoint", ("--adjoint", "--no-adjoint")),
        ("train_ode", "--points 1000000000", ("--points", "GiB")),
        ("train_ode", "--hidden-size 1000000", ("--hidden-size", "GiB")),
        ("train_ode", "--train-size 1000000000", ("--train-size", "GiB")),
        ("train_ode", "--max-memory 0", ("--max-memory",)),
        ("train_ode", "--kernel exponential:rate=nan", ("--kernel", "rate")),
        ("train_ode", "--hidden-size -1", ("--hidden-size",)),
        ("extract_memory", "torch.nn.LSTM --hidden-size 1000000", ("--hidden-size", "GiB")),
        ("extract_memory", "torch.nn.LSTM --points 10000000000", ("--points", "GiB")),
        ("extract_memory", "torch.nn.LSTM --horizon 1e12", ("--horizon", "GiB")),
        ("extract_memory", "torch.nn.LSTM --warmup 1e12", ("--warmup", "GiB")),
        ("extract_memory", "torch.nn.LSTM --hold 1", ("--hold", "--probe")),
        ("extract_memory", "torch.nn.LSTM --amplitudes inf", ("--amplitudes",)),
        ("extract_memory", "''", ("system", "empty")),
        ("perturbation_error", "'' --betas 0", ("RUN_DIR", "empty")),
        ("perturbation_error", "runs --betas nan", ("--betas",)),
        ("reproduce_figures", "ia-1a --jobs 99999999999999999999", ("--jobs",)),
        ("benchmark", "--seconds nan", ("--seconds",)),
        ("benchmark", "--out ''", ("--out",)),
    ],
)
def test_a_bad_value_is_named_with_its_flag(call_main, tmp_path, monkeypatch, script, line, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = call_main(script, *shlex.split(line))
    assert (code, out) == (2, "")
    (text,) = err.splitlines()
    for word in words:
        assert word in text
    assert list(tmp_path.iterdir()) == []


def test_a_very_long_value_is_shortened(call_main):
    _, _, err = call_main("train_ode", "--points", "9" * 5000)
    assert len(err) < 300


# --- failures ---


def test_a_fault_of_ours_is_named_as_one_and_shown_when_asked():
    body = "def main():\n    {}['missing']"
    require_line(toy(body), 1, "internal error (KeyError: 'missing')", "please report", "ODERNN_TRACEBACK=1")
    shown = toy(body, environment={"ODERNN_TRACEBACK": "1"})
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr


def test_errors_of_libraries_do_not_pass_for_bad_input():
    require_line(toy("def main():\n    int('three')"), 1, "internal error (ValueError")


def test_bad_input_is_said_by_an_installed_package_too(tmp_path):
    (tmp_path / "site-packages").mkdir()
    for package in ("odernn", "analysis", "targets"):
        (tmp_path / "site-packages" / package).symlink_to(ROOT / package)
    body = "from targets import kernels\ndef main():\n    kernels.polynomial(exponent=-1.0)"
    require_line(toy(body, environment={"PYTHONPATH": str(tmp_path / "site-packages")}), 2, "exponent")


def test_a_file_is_named_when_the_system_refuses_it(tmp_path):
    body = f"def main():\n    open({str(tmp_path / 'nowhere' / 'file')!r})"
    require_line(toy(body), 2, "nowhere/file", "No such file")
    full = "import errno\ndef main():\n    raise OSError(errno.ENOSPC, 'No space left on device', '/data/best.pt')"
    require_line(toy(full), 1, "/data/best.pt", "No space left", "make room")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["2**62, 4", "2**50"])
def test_a_size_beyond_all_memory_is_a_shortage_of_it(size):
    require_line(toy(f"import torch\ndef main():\n    torch.ones({size})"), 1, "out of memory")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's data")
def test_memory_beyond_the_limit_is_refused_in_one_line():
    body = "import torch\ndef main():\n    command_line.limit_memory(0.5)\n    torch.ones(2**28)"
    require_line(toy(body), 1, "out of memory (1 GiB more are needed)", "--max-memory")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"memory\.csv") as failure:
        replace_file(tmp_path / "memory.csv", "text")
    assert failure.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


# --- readers and Ctrl-C ---


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_failure(tmp_path):
    many = "def main():\n    for k in range(100_000):\n        print(k)\n    open('end', 'w').close()"
    text = PROGRAM.format(scripts=str(ROOT / "scripts"), body=many)
    (tmp_path / "many.py").write_text(text)
    result = shell("$PYTHON many.py | head -1", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")
    assert (tmp_path / "end").exists()
    result = shell("$PYTHON $S/reproduce_figures.py --list | true", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_that_finds_no_room_is_said(tmp_path):
    require_line(shell("$PYTHON $S/reproduce_figures.py --list > /dev/full", tmp_path), 1, "standard output", "No space left")


def test_output_that_a_terminal_cannot_show_is_escaped():
    body = "def main():\n    print('\\u03b2 \\udcff')"
    result = toy(body, environment={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stdout) == (0, "\\u03b2 \\udcff\n")


INTERRUPTED = """
import time
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("tidying", flush=True)
        time.sleep({tidying})
"""


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_is_one_line_and_the_second_one_ends_at_once(twice):
    text = PROGRAM.format(scripts=str(ROOT / "scripts"), body=INTERRUPTED.format(tidying=60 if twice else 0))
    pipe, environment = subprocess.PIPE, os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdout=pipe, stderr=pipe, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "tidying\n"
    if twice:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == f"toy.py: error: interrupted{' again, ended at once' if twice else ''}\n"


STARTING = """
import os, runpy, signal, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
sys.argv = [{script!r}, "--help"]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "analysis"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_a_script_starts_is_one_line(script, module):
    code = STARTING.format(module=module, script=str(ROOT / "scripts" / f"{script}.py"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (130, f"{script}.py: error: interrupted\n")


def test_a_long_silence_says_that_it_is_one(monkeypatch):
    body = "import time\ncommand_line._PATIENCE = 0.2\ndef main():\n    time.sleep(1)"
    lines = toy(body).stderr.splitlines()
    assert lines
    assert all("toy.py: at work for" in line for line in lines)


# --- imports ---


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_neither_what_draws_nor_what_compiles(script):
    place = str(ROOT / "scripts" / f"{script}.py")
    code = f"import runpy, sys\nsys.argv = [{place!r}, '--help']\ntry:\n    runpy.run_path({place!r}, run_name='__main__')\n"
    code += "except SystemExit:\n    print('MODULES', *sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    described, _, modules = ended.stdout.partition("MODULES ")
    assert described.startswith("usage: ")
    found = {name.partition(".")[0] for name in modules.split()}
    assert "odernn" in found
    assert not found & {"matplotlib", "numba", "llvmlite", "sklearn", "triton"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["analysis"])
def test_a_package_that_hides_ours_is_one_line(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    line = f"PYTHONPATH=.:{shlex.quote(str(ROOT))} $PYTHON $S/train_ode.py --help"
    require_line(shell(line, tmp_path), 2, f"{(tmp_path / package).resolve()} hides the package '{package}'", "rename it")


# --- places ---

TRAIN = "--hidden-size 2 --points 8 --horizon 2 --train-size 3 --validation-size 3 --epochs 1 --iterations 2"
MEASURE = "--betas 0 0.1 --draws 2 --restarts 0 --steps 2 --sequences 2"


@pytest.mark.slow
def test_scripts_work_from_elsewhere_with_spaces_unicode_and_a_slash(call_main, tmp_path, monkeypatch):
    folder = tmp_path / "ein Lauf ü"
    folder.mkdir()
    monkeypatch.chdir(folder)
    name = "m 2 β"
    assert call_main("train_ode", *shlex.split(TRAIN), "--out", f"../{folder.name}/{name}")[0] == 0
    for line in (["extract_memory", f"{name}/", "--points", "8"], ["perturbation_error", f"./{name}/", *shlex.split(MEASURE)]):
        code, _, err = call_main(*line)
        assert (code, err) == (0, "")
    monkeypatch.chdir(tmp_path)
    assert call_main("train_ode", "--resume", f"{folder.name}/{name}/", "--epochs", "2")[0] == 0
    assert (folder / name / "memory" / "memory.csv").exists()
    assert (folder / name / "perturbation_error.json").exists()


@pytest.mark.parametrize(
    "line",
    [
        "train_ode --out taken",
        "train_ode --out taken/run",
        "train_ode --resume taken",
        "train_ode --warm-start taken",
        "extract_memory taken",
        "extract_memory torch.nn.LSTM --out taken",
        "extract_memory torch.nn.LSTM --out taken/memory",
        "perturbation_error taken",
        "reproduce_figures ia-1a --out taken",
        "reproduce_figures ia-1a --out taken/new",
        "reproduce_figures ia-1a --cache taken",
        "reproduce_figures ia-1a --data taken",
        "benchmark --quick --out taken",
        "benchmark --quick --out taken/new",
    ],
)
def test_a_file_in_place_of_a_folder_is_named(call_main, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    code, _, err = call_main(*shlex.split(line))
    assert code == 2
    (text,) = err.splitlines()
    assert "taken" in text
    assert (tmp_path / "taken").read_text() == "mine"
