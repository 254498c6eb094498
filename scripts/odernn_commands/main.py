"""The command `odernn`, and the start of every script.

Nothing slow is imported here: `odernn --help` answers at once, and so does Ctrl-C while a command is being imported.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import runpy
import sys
from pathlib import Path

from .command_line import BAD_INPUT, fail, listing, run, starting

# The module of each command, and what it does. A module has PROGRAM, its name in messages, and main().
COMMANDS = {
    "train": ("train_ode", "train a model; leaves a run directory"),
    "memory": ("extract_memory", "the memory function of a run, or of any model, and the law it decays by"),
    "perturb": ("perturbation_error", "perturbation errors of runs, and whether they approximate their target stably"),
    "sweep": ("sweep", "train one model for each combination of settings"),
    "reproduce": ("reproduce_figures", "the papers' figures, computed again"),
    "benchmark": ("benchmark", "time the solvers against their alternatives"),
}


def start(name: str) -> None:
    """Runs a command on the arguments of this process."""
    module, _ = COMMANDS[name]
    with starting():
        from odernn.shadowing import require_ours

        require_ours("analysis")
        command = importlib.import_module(f".{module}", __package__)
        run(command.PROGRAM, command.main)


def main() -> None:
    """`odernn COMMAND ...`"""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(f"usage: odernn COMMAND ...\n\n{listing({name: text for name, (_, text) in COMMANDS.items()})}\n")
        print("`odernn COMMAND --help` explains its flags; `odernn --version` names the version.")
    elif name == "--version":
        print(f"odernn {_version()}")
    elif name in COMMANDS:
        sys.argv = [f"odernn {name}", *sys.argv[2:]]
        start(name)
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(COMMANDS)}"
        fail("odernn", f"unknown command {name[:60]!r}: {meant}", BAD_INPUT)


def _version() -> str:
    """From its file: `import odernn` takes seconds."""
    package = importlib.util.find_spec("odernn")
    if package is None or not package.submodule_search_locations:
        fail("odernn", "the package odernn is not installed: give `pip install -e .` in its folder", BAD_INPUT)
    return str(runpy.run_path(str(Path(package.submodule_search_locations[0]) / "version.py"))["__version__"])
