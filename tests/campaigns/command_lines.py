"""Command lines of all scripts, made from their own parsers: wrong, huge, nan, empty and odd values, and valid tiny ones.

Each runs in a process of its own, forked from one that has imported everything, in a folder of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from .campaign import Outcomes

SCRIPTS = ("train_ode", "extract_memory", "perturbation_error", "reproduce_figures", "benchmark")
CODES = {0: "done", 1: "failed, said so", 2: "refused", 130: "interrupted"}
SECONDS, MEMORY = 60, 4 * 2**30
# After that many seconds a script has said that it is at work; what comes then would only cost time.
LONG = 35
PROGRESS = " at work for "

OWN = """
import numpy as np
import torch

def rho(t):
    return np.exp(-t)

def average(x):
    return 0.5 ** torch.arange(x.shape[1]).to(x).unsqueeze(-1) * x

def network():
    return torch.nn.GRU(1, 2)

def broken():
    raise RuntimeError("broken\\non two lines")

def leaves():
    raise SystemExit(0)

def word(t):
    return "word"

number = 3
"""

# One line each: a list of a word a line says no more.
# fmt: off
HUGE = ["9" * 30, "9" * 5000, str(2**63), str(-(2**63)), str(2**63 - 1), str(2**31), "1000000000", "1000000"]
WORDS = ["", " ", "nan", "inf", "-inf", "-1", "0", "ü", "💥", "²", "½", "\udcff", "a b", "%s", "{}", "x" * 5000]
WORDS += ["a\nb", "--", "None"]
INTEGERS = [*HUGE, *WORDS, "1", "2", "3", "7", "1.5", "1e3", "0x10", " 5 ", "1_0", "٣"]
NUMBERS = [*HUGE, *WORDS, "-0.0", "1e-300", "1e300", "1e18", "1e-12", "0.5", "2", "10", "1,5", "1e-5"]
KERNELS = [
    "own.py:rho", "own.py:", "own.py:missing", "own.py:broken", "own.py:leaves", "own.py:word", "own.py:number", ":",
    "missing.py:f", "json:loads", "os:sep", "nowhere:f", "exponential:", "exponential:rate=nan", "exponential:rate=0",
    "exponential:rate=1e300", "exponential:rate=1e-300", "exponential:base=2", "polynomial:exponent=-1",
    "polynomial:exponent=1e9", "polynomial:scale=1e-300", "polynomial:exponent", "polynomial:x=1",
    "shift:start=5,stop=1", "shift:start=1e9,stop=1e10",
    "sine:frequency=1e300", "airy:shift=1e300", "two_part:center=1e300", "exponential", "polynomial",
    "shift", "sine", "airy", "two_part",
]
PLACES = [
    "taken", "taken/x", "empty", "new ü folder", "new/deep/folder", "held", ".", "..", "m2", "m2/", "m4", "a run ü",
    "broken run", "link", "/proc/x", "/dev/null", "/dev/full", "x" * 300, "\n", "~", "-", "nowhere",
]
SUBJECTS = [*PLACES, *KERNELS, "torch.nn.LSTM", "torch.nn.GRU", "torch.nn.Linear", "own.py:average", "own.py:network"]
# fmt: on

SMALL = {
    "train_ode": "--hidden-size 2 --points 8 --horizon 2 --train-size 3 --validation-size 3 --epochs 1 --iterations 2",
    "extract_memory": "--points 8 --horizon 4",
    "perturbation_error": "--betas 0 0.1 --draws 2 --restarts 0 --steps 2 --sequences 2",
    "reproduce_figures": "--jobs 1 --quick",
    "benchmark": "",
}
POSITIONAL = {
    "extract_memory": ["torch.nn.LSTM", "torch.nn.RNN", "m2", "own.py:average", "own.py:rho", "own.py:network"],
    "perturbation_error": ["m2", "m4", "a run ü"],
    "reproduce_figures": ["ia-1a", "toy", "circles"],
}


@dataclass(frozen=True)
class Ended:
    """How a command line ended. `seconds` None: it had to be killed."""

    code: int | None
    stdout: str
    stderr: str
    seconds: float
    memory: int
    touched: tuple[str, ...]


def scripts() -> dict[str, ModuleType]:
    folder = str(Path(__file__).parents[2] / "scripts")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return {name: importlib.import_module(f"odernn_commands.{name}") for name in SCRIPTS}


def words(name: str, parser: argparse.ArgumentParser, random: random.Random) -> list[str]:
    """One command line, without the script's name."""
    line = shlex.split(SMALL[name])
    flags = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    for action in random.sample(flags, random.choice((0, 1, 1, 1, 2, 2, 3))):
        odd = random.random() < 0.7
        flag = random.choice(action.option_strings)
        line.append(flag)
        if action.nargs == 0:
            line += [random.choice(WORDS)] if random.random() < 0.05 else []
            continue
        count = 1 if action.nargs is None else random.choice((0, 1, 2, 3))
        if random.random() < 0.03:
            count = 0
        line += [value(action, odd, random) for _ in range(count)]
    if name in POSITIONAL:
        count = 1 if name == "extract_memory" else random.choice((0, 1, 1, 2))
        pool = POSITIONAL[name] if random.random() < 0.8 else SUBJECTS if name == "extract_memory" else PLACES
        line = [random.choice(pool) for _ in range(count)] + line
    if random.random() < 0.05:
        line.insert(random.randrange(len(line) + 1), random.choice(("--nonsense", "-x", "--", "extra", "--hidden", "", "💥")))
    if name == "benchmark" and not random.random() < 0.2:
        line += ["--list"] if random.random() < 0.3 else ["--threads", random.choice(("0", "-1", "100000"))]
    elif name == "benchmark":
        line += ["--list"]
    return line


def value(action: argparse.Action, odd: bool, random: random.Random) -> str:
    if action.choices is not None:
        return random.choice(WORDS if odd and random.random() < 0.3 else [str(choice) for choice in action.choices])
    if action.dest == "kernel":
        return random.choice(KERNELS if random.random() < 0.8 else WORDS)
    if action.type is int:
        return random.choice(INTEGERS) if odd else str(random.randrange(1, 5))
    if action.type is float:
        return random.choice(NUMBERS) if odd else f"{random.uniform(0.01, 2):.3g}"
    if action.dest == "blocks":
        return random.choice(["recurrent", "all", "c", "U", "W", "b", *WORDS])
    return random.choice(PLACES if random.random() < 0.8 else WORDS)


def fixture(folder: Path) -> Path:
    """The files that every command line finds in its folder."""
    from odernn.experiment import Experiment, ExperimentConfig
    from odernn.runs import RunDirectory
    from odernn.training import TrainingConfig

    for name, size in (("m2", 2), ("m4", 4), ("a run ü", 8)):
        config = ExperimentConfig(
            points=8, horizon=2.0, train_size=3, validation_size=3, kernel="exponential", activation="linear", hidden_size=size,
            recurrence="diagonal", training=TrainingConfig(epochs=1, iterations=2),
        )  # fmt: skip
        run = RunDirectory.create(folder / name, {"experiment": config.to_dict()})
        Experiment(config).train(run, progress=False)
    shutil.copytree(folder / "m2", folder / "broken run")
    (folder / "broken run" / "best.pt").write_bytes(b"PK\x03\x04")
    (folder / "own.py").write_text(OWN)
    (folder / "taken").write_text("a user's file")
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("nowhere-at-all")
    (folder / "held").mkdir()
    # A user's own files, by the names that scripts would write.
    for name in ("README.md", "memory.csv", "perturbation_error.csv", "perturbation_error.json", "benchmark.json", "config.json"):
        (folder / "held" / name).write_text("{}")
    (folder / "held" / "toy").mkdir()
    (folder / "held" / "toy" / "data.json").write_text("{}")
    return folder


def run(module: ModuleType, line: list[str], template: Path, seconds: float = SECONDS) -> Ended:
    """The command line in a process of its own; the memory is what it took beyond what its imports had."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "outer" / "inner"
        shutil.copytree(template, folder, symlinks=True)
        before = hashes(folder)
        out, err = Path(root) / "stdout", Path(root) / "stderr"
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(module, line, folder, out, err)
        code: int | None = None
        while True:
            done, status, usage = os.wait4(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            waited = time.monotonic() - start
            if waited > seconds or (waited > LONG and PROGRESS in err.read_text()):
                os.killpg(child, signal.SIGKILL)
                _, _, usage = os.wait4(child, 0)
                break
            time.sleep(0.005)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = (usage.ru_maxrss - own) * 1024
        after = hashes(folder)
        touched = tuple(sorted(name for name, content in before.items() if after.get(name) != content))
        return Ended(code, out.read_text(), err.read_text(), time.monotonic() - start, taken, touched)


def _child(module: ModuleType, line: list[str], folder: Path, out: Path, err: Path) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        for stream, file in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), stream)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(k, "r" if k == 0 else "w", 1, closefd=False) for k in range(3))
        sys.argv = [str(module.__file__), *line]
        try:
            from odernn_commands.command_line import run

            run(module.PROGRAM, module.main)
            code = 0
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 98
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fault(line: list[str], ended: Ended) -> str | None:
    """The fault in the way that a command line ended; None if there is none."""
    said = [text for text in ended.stderr.splitlines() if PROGRESS not in text]
    if ended.memory > MEMORY:
        return f"took {ended.memory / 2**30:.1f} GiB"
    if ended.code is None:
        return None if PROGRESS in ended.stderr else f"silent for {SECONDS} s"
    if "Traceback" in ended.stderr or "internal error" in ended.stderr:
        return (said or [""])[-1]
    if ended.code not in CODES:
        return f"exit code {ended.code}: {said[-1:]}"
    if ended.touched and not {"--overwrite", "--resume"} & set(line):
        return f"replaced {', '.join(ended.touched)}"
    if ended.code == 2:
        if len(said) != 1:
            return f"{len(said)} lines: {said[:3]}"
        named = [" ".join(word.split())[:20] for word in line if len(word) > 1] + [repr(word) for word in line]
        if not any(word in said[0] for word in [*named, "--", "NAME", "RUN_DIR", "system", "name the figures", "unrecognized"]):
            return f"names no flag and no file: {said[0]}"
    if ended.code == 1 and len(said) != 1:
        return f"{len(said)} lines: {said[:3]}"
    return None


@dataclass(frozen=True)
class CommandLines:
    """Size: command lines in all, of the scripts in turn."""

    name: str = "command_lines"
    full: int = 1000
    short: int = 25

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes = Outcomes()
        torch.set_num_threads(1)
        modules = scripts()
        with tempfile.TemporaryDirectory() as root:
            template = _prepared(Path(root) / "template")
            for k in range(size):
                name = SCRIPTS[k % len(SCRIPTS)]
                chance = random.Random(f"{seed} {k}")
                line = words(name, modules[name].parser(), chance)
                ended = run(modules[name], line, template)
                wrong = fault(line, ended)
                outcome = "long, said so" if ended.code is None else CODES.get(ended.code, "another code")
                shown = shlex.join(word if len(word) < 100 else f"{word[:20]}..." for word in line)
                shown = shown.encode(errors="backslashreplace").decode()
                outcomes.count(name, outcome, None if wrong is None else f"{wrong}: {name}.py {shown}")
                if wrong is not None:
                    print(outcomes.failures[-1], file=sys.stderr, flush=True)
        return outcomes


def _prepared(folder: Path) -> Path:
    """The fixture, made in a process of its own: compiled kernels that ran with threads do not survive a fork."""
    folder.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        try:
            fixture(folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the runs that the command lines need could not be made")
    return folder


CAMPAIGNS = [CommandLines()]
